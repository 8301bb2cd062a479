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
def camera(tmp_path: Path, tiny_images: dict[str, list[bytes]]) -> Path:
    """A folder of images, one of which is broken, beside an image that is no part of it."""
    folder = tmp_path / "camera"
    folder.mkdir()
    for kind in ("good", "defect"):
        (folder / f"{kind}.png").write_bytes(tiny_images[kind][0])
    (folder / "bad.png").write_bytes(b"no image")
    (tmp_path / "secret.png").write_bytes(tiny_images["good"][0])
    return folder


@pytest.fixture
def curl() -> str:
    """Path of curl, which inspect.sh calls."""
    program = shutil.which("curl")
    if program is None:
        pytest.skip("there is no curl; on Debian: apt-get install curl")
    return program
