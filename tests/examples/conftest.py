"""Fixtures: a real service for the examples, and the programs that they call."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from fastapi import FastAPI

from app.main import create_app
from app.settings import Settings
from tests.app.conftest import serve_http as serve_http


@pytest.fixture(scope="module")
def url(
    tiny_bundle_store: Path,
    serve_http: Callable[[FastAPI], AbstractContextManager[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    history = tmp_path_factory.mktemp("examples") / "history"
    with serve_http(create_app(Settings(models=tiny_bundle_store, history=history))) as url:
        yield url


@pytest.fixture
def curl() -> str:
    """Path of curl, which inspect.sh calls."""
    program = shutil.which("curl")
    if program is None:
        pytest.skip("there is no curl; on Debian: apt-get install curl")
    return program
