"""What the tests of the whole system share."""

from pathlib import Path

import pytest

from bench.service import fleet
from tests.system.processes import FlowGauge
from training.config import RunConfig, dump_config


@pytest.fixture
def flowgauge(tmp_path: Path) -> FlowGauge:
    """The command, in a directory of the test's own."""
    return FlowGauge(tmp_path)


@pytest.fixture(scope="session")
def tiny_yaml(tmp_path_factory: pytest.TempPathFactory, tiny_config: RunConfig) -> Path:
    """The tiny run as a user's YAML, with one thread: for so little more would wait for each other."""
    fit = tiny_config.fit.model_copy(update={"threads": 1})
    path = tmp_path_factory.mktemp("config") / "run.yaml"
    path.write_text(dump_config(tiny_config.model_copy(update={"fit": fit})))
    return path


@pytest.fixture(scope="session")
def small_fleet(tmp_path_factory: pytest.TempPathFactory) -> fleet.Fleet:
    """Three categories in two versions, each really trained. Not to be changed: copy it."""
    return fleet.make(tmp_path_factory.mktemp("fleet"), size=64, categories=3, versions=2)
