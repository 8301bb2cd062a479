"""Fixtures: a real service for the examples."""

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
