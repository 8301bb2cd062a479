"""Services that routes are tested on."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.app.support.services import create_service


@pytest.fixture
def client(store: Path) -> Iterator[TestClient]:
    """A service whose models, settings, history and counters are the test's own."""
    with create_service(store) as client:
        yield client


@pytest.fixture(scope="module")
def steady(tiny_bundle_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """One for all that is refused: it leaves no trace."""
    with create_service(
        shutil.copytree(tiny_bundle_store, tmp_path_factory.mktemp("steady") / "models")
    ) as client:
        yield client
