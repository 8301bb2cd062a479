"""The service for tests: in memory, and over real HTTP."""

import asyncio
import io
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import timm
import torch
import uvicorn
from fastapi import FastAPI
from numpy.typing import NDArray
from PIL import Image
from starlette.testclient import TestClient

from app.auth.key_store import KeyStore
from app.auth.permissions import COMMAND_LINE
from app.database.engine import Database
from app.history.deletions import DeletionGuard
from app.history.history import History
from app.history.retention import Retention
from app.jobs.job_store import JobStore
from app.main import create_app
from app.registry.calibrations import CalibrationFiles
from app.registry.loaded_models import LoadedModels
from app.registry.loader import Loader
from app.registry.model_files import ModelFiles
from app.registry.model_store import ModelStore
from app.schemas.access import Role
from app.settings import Settings
from flows.fastflow.bundle import models_folder
from flows.fastflow.detector import Detector
from tests.conftest import trained_once
from tests.support.serving import running
from training.config.run_config import BackboneConfig, RunConfig
from training.terminal.progress import Silent

Serve = Callable[[FastAPI], AbstractContextManager[str]]


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"FLOWGAUGE_{name.upper()}", raising=False)
    # Whatever a test starts keeps its history there, and not where pytest was called.
    monkeypatch.setenv("FLOWGAUGE_HISTORY", str(tmp_path / "history"))
    # As a user may choose: compiled for OpenVINO, these hundreds of services would take minutes more.
    # tests/system runs what a user gets by default.
    monkeypatch.setenv("FLOWGAUGE_ENGINE", "torch")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Tests that are coroutines run in asyncio's loop, as the service does."""
    return "asyncio"


@pytest.fixture
def first(store: Path) -> str:
    """The version that is active from the start."""
    return models_folder.resolve(store, "tiny").name


@pytest.fixture
def loaded_models(store: Path) -> Iterator[LoadedModels]:
    """The models in memory of a service without its parts."""
    loaded_models = LoadedModels(ModelFiles(store), Loader(store, "cpu"), 2**31)
    yield loaded_models
    loaded_models.close()


@pytest.fixture
def model_store(store: Path, loaded_models: LoadedModels) -> ModelStore:
    """The models folder of that service."""
    return ModelStore(ModelFiles(store), loaded_models, 2**30, CalibrationFiles(store))


@pytest.fixture(scope="session")
def service(tiny_bundle_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The service with the tiny model, in memory; for tests that leave it as it is."""
    settings = Settings(models=tiny_bundle_store, history=tmp_path_factory.mktemp("service") / "history")
    with TestClient(create_app(settings)) as client:
        yield client


@dataclass(frozen=True)
class Keyed:
    """A service with keys: a client that shows none by itself, its app, and the text of a key by role."""

    client: TestClient
    app: FastAPI
    keys: dict[str, str]

    def show(self, role: str) -> dict[str, str]:
        """Headers of a request with a key."""
        return {"X-API-Key": self.keys[role]}

    @property
    def database(self) -> Database:
        history: History = self.app.state.history
        return history.database

    def key_id(self, role: str) -> str:
        """The part of a key's text that is no secret."""
        return self.keys[role][3:19]


@contextmanager
def keyed_service(models: Path, history: Path) -> Iterator[Keyed]:
    """Run a service with a key of each role, and "limited", an admin's of category tiny alone."""
    settings = Settings(models=models, history=history)
    database = Database(settings.database_url)
    database.upgrade()
    keys = {role.value: KeyStore(database).create(COMMAND_LINE, role, f"the {role}")[1] for role in Role}
    limited = KeyStore(database).create(COMMAND_LINE, Role.ADMIN, "limited", categories=["tiny"])[1]
    database.close()
    app = create_app(settings)
    with TestClient(app) as client:
        yield Keyed(client, app, {**keys, "limited": limited})


@pytest.fixture
def keyed(tmp_path: Path) -> Iterator[Keyed]:
    """A service without models that has keys."""
    (tmp_path / "no-models").mkdir()
    with keyed_service(tmp_path / "no-models", tmp_path / "history") as keyed:
        yield keyed


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    """An empty history of no service."""
    history = History(Settings(models=tmp_path / "models", history=tmp_path / "history"))
    history.database.prepare()
    yield history
    history.database.close()


def history_of(client: TestClient) -> History:
    """The history of a service in memory."""
    app: Any = client.app
    history: History = app.state.history
    return history


def remove_files(history: History) -> None:
    """Let retention remove every image and map that it may."""
    guard = DeletionGuard()
    retention = Retention(Settings(retention_bytes=1), history, guard)
    asyncio.run(retention.once())
    for held in guard.held():
        retention.confirm(held.kind)
    asyncio.run(retention.once())


@pytest.fixture(scope="session")
def tiny_bundle_store(
    of_all_workers: Path,
    tiny_data: Path,
    tiny_config: RunConfig,
    silent: Silent,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Path]:
    """As elsewhere, but with a backbone of a tenth of the size: what is tested here does not depend on it.

    Nearly every test of this folder copies, hashes, loads and asks the model. Its weights are random ones.
    """
    weights = tmp_path_factory.mktemp("weights") / "random.pth"
    with torch.random.fork_rng():
        torch.manual_seed(1)
        torch.save(timm.create_model("test_efficientnet", pretrained=False).state_dict(), weights)
    backbone = BackboneConfig(name="test_efficientnet", out_indices=(1, 2), weights=weights)
    config = tiny_config.model_copy(update={"backbone": backbone})
    with trained_once(of_all_workers / "small-store", config, tiny_data, silent) as models:
        yield models


@pytest.fixture(scope="module")
def detector(tiny_bundle_store: Path) -> Detector:
    return Detector.load(models_folder.resolve(tiny_bundle_store, "tiny"), device="cpu")


@pytest.fixture
def store(tiny_bundle_store: Path, tmp_path: Path) -> Path:
    """A models folder of the test's own."""
    return shutil.copytree(tiny_bundle_store, tmp_path / "models")


@pytest.fixture(scope="session")
def serve_http() -> Serve:
    """Serve an app over real HTTP on a free port; gives its URL."""

    @contextmanager
    def serve(app: FastAPI) -> Iterator[str]:
        with running(uvicorn.Config(app, port=0, log_config=None, access_log=False)) as port:
            yield f"http://127.0.0.1:{port}"

    return serve


@pytest.fixture
def keyless(tmp_path: Path, serve_http: Serve) -> Iterator[httpx.Client]:
    """A service without keys on this machine, over real HTTP."""
    (tmp_path / "models").mkdir()
    app = create_app(Settings(models=tmp_path / "models"))
    with serve_http(app) as url, httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture
def no_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the jobs that a test queues to the test."""
    monkeypatch.setattr(JobStore, "next_queued", lambda *_: None)


@pytest.fixture(scope="session")
def read_png() -> Callable[[bytes], NDArray[np.uint8]]:
    """A PNG's pixels, (H, W, 3), by Pillow."""

    def read(data: bytes) -> NDArray[np.uint8]:
        with Image.open(io.BytesIO(data)) as image:
            assert image.format == "PNG"
            return np.asarray(image.convert("RGB"))

    return read
