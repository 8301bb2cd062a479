"""Fixtures of the system tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.schemas.access import Role
from tests.support.server import Server
from tests.system.pages import Site, site
from tests.system.processes import ENGINE_CACHE, FlowGauge, first_key
from training.config.load_config import dump_config
from training.config.run_config import RunConfig


@pytest.fixture(scope="session", autouse=True)
def _engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Share compiled graphs among the servers that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENGINE_CACHE, str(tmp_path_factory.mktemp("engines")))
        yield


@pytest.fixture
def flowgauge(tmp_path: Path) -> FlowGauge:
    return FlowGauge(tmp_path)


@pytest.fixture(scope="session")
def tiny_yaml(tmp_path_factory: pytest.TempPathFactory, tiny_config: RunConfig) -> Path:
    """The tiny run as YAML, with one thread: more would wait for each other."""
    fit = tiny_config.fit.model_copy(update={"threads": 1})
    path = tmp_path_factory.mktemp("config") / "run.yaml"
    path.write_text(dump_config(tiny_config.model_copy(update={"fit": fit})))
    return path


@pytest.fixture(scope="module")
def keyed(tiny_bundle_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server that asks for keys, and a client with an administrator's."""
    server = Server(tiny_bundle_store, tmp_path_factory.mktemp("keyed"))
    with site(server, first_key(server.history, Role.ADMIN)) as keyed:
        yield keyed
