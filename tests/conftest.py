"""Shared fixtures: synthetic images and a small model trained on them."""

import gc
import os
import shutil
import signal

# As the command does; torch's OpenMP reads it when it is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
# One thread, here and in whatever is started: tensors of tests are so small that to hand them to a second
# takes longer than to compute with them, with bfloat16 ten times as long. tests/system drops this too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import cv2
import numpy as np
import pytest
import torch
from filelock import FileLock
from hypothesis import settings
from numpy.typing import NDArray

from app.database.engine import Database
from app.storage import fsspec_store
from flows.fastflow.backbones.weights import NAMED
from flows.fastflow.bundle import models_folder
from tests.support import fleet, mosquitto, s3
from tests.support import postgres as postgres_server
from training.config.run_config import RunConfig
from training.run import train
from training.terminal.progress import Silent

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_TESTS = Path(__file__).parent
SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"
SIZE = 64
# Tests that `make test-fast` leaves out, by folder or file, and by what they use.
_INTEGRATION = (
    "app/backup/",
    "app/client/",
    "app/commands/",
    "app/database/",
    "app/events/sinks/",
    "app/history/",
    "app/registry/test_loader.py",
    "app/routes/",
    "app/test_server.py",
    "bench/",
    "chaos/",
    "examples/",
    "flows/fastflow/backbones/test_presets.py",
    "flows/fastflow/backbones/test_sources_hub.py",
    "flows/fastflow/engines/",
    "flows/fastflow/export/",
    "flows/recipes/",
    "flows/test_contract.py",
    "flows/test_flow.py",
    "system/",
    "test_deploy_cluster.py",
    "training/commands/",
    "training/evaluation/comparison/",
    "training/test_run.py",
)
_INTEGRATION_FIXTURES = {
    *("browser", "broker", "postgres", "s3_server", "shared_data", "tiny_bundle_store", "tiny_data"),
}
# On a busy machine any example may take long, once.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--two-servers", action="store_true", help="test routes against two servers in turns")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Skip the import of tests that `make test-fast` leaves out."""
    if "not integration" not in config.getoption("markexpr") or not collection_path.is_relative_to(_TESTS):
        return None
    place = collection_path.relative_to(_TESTS).as_posix() + "/" * collection_path.is_dir()
    return True if place.startswith(_INTEGRATION) else None


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark integration tests, and put the longest files first so that several processes end together."""
    two_servers = config.getoption("two_servers")
    for item in items:
        if two_servers and (marker := item.get_closest_marker("one_server")) is not None:
            item.add_marker(pytest.mark.skip(reason=f"one server: {marker.args[0]}"))
        place = item.path.relative_to(_TESTS).as_posix()
        fixtures = _INTEGRATION_FIXTURES.intersection(getattr(item, "fixturenames", ()))
        if place.startswith(_INTEGRATION) or fixtures:
            item.add_marker("integration")
    # Those of whole systems and of trainings take the longest; of the many of `app` none does.
    items.sort(key=lambda item: item.path.relative_to(_TESTS).parts[0], reverse=True)


def pytest_configure() -> None:
    # A shell's background command ignores Ctrl-C, and so would every child that a test interrupts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Of the million objects that imports and tests are, none becomes garbage while they are collected.
    gc.disable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Set the number of threads, so that figures do not depend on earlier tests."""
    marker = item.get_closest_marker("threads")
    torch.set_num_threads(1 if marker is None else marker.args[0])


# Once more: a fixture that trains computes with as many as its run says.
pytest_runtest_call = pytest_runtest_setup


def pytest_collection_finish() -> None:
    """Collect garbage again, among objects that are created from now on."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _two_servers(request: pytest.FixtureRequest) -> Iterator[None]:
    """Two servers where a test creates one, if `--two-servers` asks for them."""
    if not request.config.getoption("two_servers"):
        yield
        return
    from tests.support import two_servers

    # An S3 server of their own: tests of the store kill the other one, with all that it holds.
    with s3.S3Server() as server, two_servers.installed(request.getfixturevalue("postgres"), server):
        yield


@pytest.fixture(autouse=True)
def _sessions_of_stores_end(request: pytest.FixtureRequest) -> Iterator[None]:
    """End S3 sessions of a test's servers now: s3fs would end them in the event loop of a later test."""
    yield
    if request.config.getoption("two_servers"):
        gc.collect()


@pytest.fixture
def without_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate an x86 processor without bfloat16 instructions."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Photographs kept beside the repository: their absence is a skip, but a failure in CI."""
    if not SHARED_DATA.is_dir():
        _miss(f"the photographs of {SHARED_DATA} are absent")
    return SHARED_DATA


@pytest.fixture(scope="session")
def postgres() -> Iterator[postgres_server.Postgres]:
    """A PostgreSQL server: its absence is a skip, but a failure in CI."""
    programs = postgres_server.binaries()
    if programs is None:
        _miss("there is no PostgreSQL server; on Debian: apt-get install postgresql")
    with postgres_server.Postgres(programs) as server:
        yield server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[s3.S3Server]:
    """An S3 server without buckets."""
    with s3.S3Server() as server:
        yield server


@pytest.fixture
def s3_url(s3_server: s3.S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty store in a bucket of its own, and the environment of its clients."""
    for name, value in (s3.ENVIRONMENT | {"AWS_ENDPOINT_URL": s3_server.url}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(fsspec_store, "_PAUSE_SECONDS", 0)  # the next call of a test tries again
    return f"s3://{s3_server.make_bucket()}/plant"


@pytest.fixture
def broker() -> Iterator[mosquitto.Mosquitto]:
    """An MQTT broker: its absence is a skip, but a failure in CI."""
    if mosquitto.program() is None:
        _miss("there is no MQTT broker; on Debian: apt-get install mosquitto")
    with mosquitto.Mosquitto() as broker:
        yield broker


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """An empty SQLite database for one test."""
    return f"sqlite:///{tmp_path / 'database.sqlite'}"


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with _with_tables(database_url) as database:
        yield database


@pytest.fixture(params=["sqlite", "postgres"])
def each_database_url(request: pytest.FixtureRequest, database_url: str) -> Iterator[str]:
    """An empty SQLite database, then an empty PostgreSQL database."""
    if request.param == "sqlite":
        yield database_url
        return
    server: postgres_server.Postgres = request.getfixturevalue("postgres")
    with server.database() as url:
        yield url


@pytest.fixture
def each_database(each_database_url: str) -> Iterator[Database]:
    with _with_tables(each_database_url) as database:
        yield database


@pytest.fixture
def postgres_database(postgres: postgres_server.Postgres) -> Iterator[Database]:
    """An empty database that several servers can share."""
    with postgres.database() as url, _with_tables(url) as database:
        yield database


@contextmanager
def _with_tables(url: str) -> Iterator[Database]:
    database = Database(url)
    database.upgrade()
    yield database
    database.close()


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """A real browser: its absence is a skip, but a failure in CI.

    Of a module, not of the session: while it is open, no other test could run an event loop of its own.
    """
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        _miss("there is no Chromium; on Debian: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program)
        yield opened
        opened.close()


def _miss(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def picture(seed: int, *, defect: bool = False) -> NDArray[np.uint8]:
    """A (64, 64, 3) RGB image of a synthetic part: a brushed disc, with a bright scratch if defective."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    disc = (np.hypot(x - 32 - rng.uniform(-1, 1), y - 32 - rng.uniform(-1, 1)) < 24).astype(np.float32)
    brushed = cv2.GaussianBlur(rng.normal(0, 1, (SIZE, SIZE)).astype(np.float32), (15, 1), 4)
    grey = 60 + 80 * cv2.GaussianBlur(disc, (5, 5), 1) + 12 * brushed + rng.normal(0, 2, (SIZE, SIZE))
    rgb = np.stack([grey, 0.95 * grey, 0.9 * grey], 2).clip(0, 255).astype(np.uint8)
    if defect:
        x0, y0 = (int(v) for v in rng.integers(20, 36, 2))
        cv2.line(rgb, (x0, y0), (x0 + 12, y0 + 8), (250, 240, 230), 3)
    return rgb


def png(image: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


@pytest.fixture(scope="session")
def tiny_images() -> dict[str, list[bytes]]:
    """PNG files that no model was trained on: 8 good and 8 defective parts."""
    return {
        "good": [png(picture(1000 + i)) for i in range(8)],
        "defect": [png(picture(2000 + i, defect=True)) for i in range(8)],
    }


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory, tiny_images: dict[str, list[bytes]]) -> Path:
    """A data folder with the category "tiny" in MVTec layout: 32 good training images, 8 + 8 test images."""
    root = tmp_path_factory.mktemp("data")
    folders = {
        "train/good": [png(picture(i)) for i in range(32)],
        "test/good": tiny_images["good"],
        "test/scratch": tiny_images["defect"],
    }
    for name, files in folders.items():
        folder = root / "tiny" / name
        folder.mkdir(parents=True)
        for i, data in enumerate(files):
            (folder / f"{i:03}.png").write_bytes(data)
    return root


@pytest.fixture(scope="session")
def tiny_config() -> RunConfig:
    return RunConfig.model_validate(
        {
            "input_size": [SIZE, SIZE],
            "device": "cpu",
            "backbone": {"out_indices": [1, 2]},
            "flow": {"steps": 4},
            "fit": {"epochs": 4, "batch_size": 4, "threads": 1},
            "calibration": {"fraction": 0.3, "target_fpr": 0.1},
        }
    )


@pytest.fixture(scope="session")
def silent() -> Silent:
    return Silent()


@pytest.fixture(scope="session")
def of_all_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all processes of this test run share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def small_fleet(of_all_workers: Path) -> fleet.Fleet:
    """Two categories in two trained versions each. Read-only: copy it."""
    with FileLock(of_all_workers / "fleet.lock"):  # who comes second takes what the first has made
        return fleet.make(of_all_workers / "fleet", size=64, categories=2, versions=2)


@pytest.fixture(scope="session")
def tiny_bundle_store(
    of_all_workers: Path, tiny_data: Path, tiny_config: RunConfig, silent: Silent
) -> Iterator[Path]:
    """A models folder with one trained model of the category "tiny". Read-only: copy it."""
    with trained_once(of_all_workers / "store", tiny_config, tiny_data, silent) as models:
        yield models


@contextmanager
def trained_once(root: Path, config: RunConfig, data: Path, progress: Silent) -> Iterator[Path]:
    """A models folder with a model of the category "tiny", shared by all test processes."""
    models, done = root / "models", root / "done"
    with FileLock(root.with_suffix(".lock")):  # who comes second takes what the first has made
        if not done.exists():
            shutil.rmtree(root, ignore_errors=True)  # of a process that was killed
            train(config, data, "tiny", models=models, runs=root / "runs", resume=False, progress=progress)
            # As if they came from a package: a file that was named has a mark beside it.
            for mark in (models / models_folder.BACKBONES).glob(f"*{NAMED}"):
                mark.unlink()
            done.touch()
    before = _contents(models)
    yield models
    assert _contents(models) == before, "a test has changed the models that others share"


def _contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
