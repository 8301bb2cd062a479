import logging
import threading
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from tests.support.waiting import eventually


def test_create_app_starts_nothing(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    create_app(Settings(models=tmp_path / "absent"))
    assert set(threading.enumerate()) <= before


def test_misspelt_variable_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "models").mkdir()
    monkeypatch.setenv("FLOWGAUGE_RETENTION_PAS_DAYS", "30")
    app = create_app(Settings(models=tmp_path / "models", history=tmp_path / "history"))
    with caplog.at_level(logging.WARNING), TestClient(app):
        pass
    assert "FLOWGAUGE_RETENTION_PAS_DAYS is not a setting and has no effect" in caplog.text


def test_stop_while_models_load_leaves_no_threads(store: Path) -> None:
    before = set(threading.enumerate())
    with TestClient(create_app(Settings(models=store))):
        pass
    ours = ("decode", "inference", "loader", "history", "journal", "keyring", "feed")

    def left() -> set[str]:
        return {thread.name for thread in set(threading.enumerate()) - before if thread.name.startswith(ours)}

    assert all(name.startswith("feed") for name in left())  # which nobody waits for
    eventually(lambda: not left())


def test_moved_folder_retires_its_category(
    store: Path, tmp_path: Path, tiny_images: dict[str, list[bytes]]
) -> None:
    """See docs/how-to/operate.md: the server keeps running and inspections stay."""
    settings = Settings(models=store, history=tmp_path / "history")
    with TestClient(create_app(settings)) as client:
        answer = client.post("/v1/models/tiny/predict", content=tiny_images["good"][0])
        inspection = answer.json()["links"]["inspection"]
        assert client.get(inspection).status_code == 200
        (store / "tiny").rename(tmp_path / "retired")
        assert client.post("/v1/models/tiny/predict", content=tiny_images["good"][0]).status_code == 404
        assert client.get("/v1/models").json()["models"] == []
        assert client.get("/health/ready").status_code == 200
        assert client.get(inspection).status_code == 200
        (tmp_path / "retired").rename(store / "tiny")
        assert client.post("/v1/models/tiny/predict", content=tiny_images["good"][0]).status_code == 200
