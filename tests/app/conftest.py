"""The service for tests: in memory, and over real HTTP."""

import io
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from numpy.typing import NDArray
from PIL import Image
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from flows.fastflow import bundle

Serve = Callable[[FastAPI], AbstractContextManager[str]]


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"FLOWGAUGE_{name.upper()}", raising=False)


@pytest.fixture(scope="session")
def service(tiny_bundle_store: Path) -> Iterator[TestClient]:
    """The service with the tiny model, in memory; for tests that leave it as it is."""
    with TestClient(create_app(Settings(models=tiny_bundle_store))) as client:
        yield client


@pytest.fixture
def store(tiny_bundle_store: Path, tmp_path: Path) -> Path:
    """A models folder of the test's own."""
    return shutil.copytree(tiny_bundle_store, tmp_path / "models")


@pytest.fixture(scope="session")
def add_version() -> Callable[[Path, str, str], Path]:
    """Publish the tiny model once more, as a version of a category."""

    def add(models: Path, category: str, version: str) -> Path:
        original = bundle.resolve(models, "tiny")
        copy = shutil.copytree(original, models / category / version)
        manifest = json.loads((copy / bundle.MANIFEST).read_text())
        manifest |= {"category": category, "version": version}
        (copy / bundle.MANIFEST).write_text(json.dumps(manifest))
        return copy

    return add


@pytest.fixture(scope="session")
def serve_http() -> Serve:
    """Serve an app over real HTTP on a free port; gives its URL."""

    @contextmanager
    def serve(app: FastAPI) -> Iterator[str]:
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive(), "the server did not start"
                time.sleep(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join()

    return serve


@pytest.fixture(scope="session")
def live_service(tiny_bundle_store: Path, serve_http: Serve) -> Iterator[httpx.Client]:
    """The service with small limits, over real HTTP; for tests that leave it as it is."""
    settings = Settings(models=tiny_bundle_store, max_bytes=200_000, max_pixels=100_000)
    with (
        serve_http(create_app(settings)) as url,
        httpx.Client(base_url=url, timeout=60, trust_env=False) as client,
    ):
        yield client


@pytest.fixture(scope="session")
def read_png() -> Callable[[bytes], NDArray[np.uint8]]:
    """A PNG's pixels, (H, W, 3), by Pillow."""

    def read(data: bytes) -> NDArray[np.uint8]:
        with Image.open(io.BytesIO(data)) as image:
            assert image.format == "PNG"
            return np.asarray(image.convert("RGB"))

    return read
