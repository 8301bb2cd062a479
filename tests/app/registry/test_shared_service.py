"""Two services beside each other, with one database and one store."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from app.main import create_app
from app.registry import model_rows
from app.registry.loaded_models import LoadedModels
from app.settings import Settings
from flows.fastflow.bundle.bundle import FLOW, MANIFEST
from tests.app.support.bundles import make_archive
from tests.app.support.services import predict
from tests.support.postgres import Postgres
from tests.support.waiting import eventually

_ZIP = {"Content-Type": "application/zip"}


@pytest.fixture
def both(store: Path, first: str, tmp_path: Path, postgres: Postgres) -> Iterator[list[TestClient]]:
    """Two services; the models of the first become the shared ones."""
    with postgres.database() as url, ExitStack() as stack:
        (tmp_path / "b" / "models").mkdir(parents=True)
        (tmp_path / "shared").mkdir()
        clients = []
        for name, models in (("a", store), ("b", tmp_path / "b" / "models")):
            settings = Settings(
                models=models,
                history=tmp_path / name / "history",
                database=url,
                store=f"file://{tmp_path}/shared",
            )
            clients.append(stack.enter_context(TestClient(create_app(settings))))
        yield clients


def test_version_is_loaded_and_deleted_on_both(
    both: list[TestClient], store: Path, first: str, tmp_path: Path, tiny_images: dict[str, list[bytes]]
) -> None:
    a, b = both
    image = tiny_images["good"][0]
    assert predict(a, image)["score"] == predict(b, image)["score"]
    archive = make_archive(store, "v2")
    uploaded = a.post("/v1/models/tiny/versions", content=archive, headers=_ZIP)
    assert uploaded.status_code == 201, uploaded.text
    assert b.post("/v1/models/tiny/versions", content=archive, headers=_ZIP).json()["type"] == "conflict"
    assert b.post("/v1/models/tiny/versions/v2:activate").status_code == 200
    eventually(lambda: serving(a) == serving(b) == "v2")  # without a request
    changed = a.patch(
        "/v1/models/tiny/thresholds", json={"target_fpr": 0.2, "reason": "busy"}, headers={"If-Match": "*"}
    )
    assert changed.status_code == 200, changed.text
    eventually(lambda: predict(b, image)["threshold"]["target_fpr"] == 0.2)
    assert a.delete(f"/v1/models/tiny/versions/{first}").status_code == 204
    eventually(lambda: b.get(f"/v1/models/tiny/versions/{first}").status_code == 404)
    assert [path.name for path in (tmp_path / "b/models/tiny").glob("*/")] == ["v2"]
    assert not [path for path in (tmp_path / "shared/models/tiny" / first).rglob("*") if path.is_file()]


def test_change_is_followed_by_polling_alone(
    both: list[TestClient], store: Path, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_rows, "notify", lambda *_: None)
    a, b = both
    a.post("/v1/models/tiny/versions", content=make_archive(store, "v2"), headers=_ZIP)
    for version in ("v2", first):
        assert a.post(f"/v1/models/tiny/versions/{version}:activate").status_code == 200
        eventually(lambda version=version: serving(b) == version)  # type: ignore[misc]


def test_lost_store_keeps_serving_what_is_loaded(
    both: list[TestClient], store: Path, first: str, tmp_path: Path, tiny_images: dict[str, list[bytes]]
) -> None:
    a, b = both
    image = tiny_images["good"][0]
    uploaded = a.post("/v1/models/tiny/versions", content=make_archive(store, "v2"), headers=_ZIP)
    assert uploaded.status_code == 201
    shared = tmp_path / "shared"
    shared.rename(tmp_path / "away")
    refused = b.post("/v1/models/tiny/versions/v2:activate")
    assert (refused.status_code, refused.json()["type"]) == (503, "model-loading")
    assert predict(b, image)["model"]["version"] == predict(a, image)["model"]["version"] == first
    (tmp_path / "away").rename(shared)
    assert b.post("/v1/models/tiny/versions/v2:activate").status_code == 200
    assert {FLOW, MANIFEST} <= {path.name for path in (tmp_path / "b/models/tiny/v2").iterdir()}


def test_category_is_retired_on_both(
    both: list[TestClient], first: str, tiny_images: dict[str, list[bytes]]
) -> None:
    """By the command of the page, and used again."""

    def answer(status: int) -> bool:
        url = "/v1/models/tiny/predict"
        return {client.post(url, content=tiny_images["good"][0]).status_code for client in both} == {status}

    assert answer(200)
    page = Path("docs/how-to/run-several-servers.md").read_text()
    [command] = re.findall(r'"(UPDATE model_files [^"]*)"', page)
    app: Any = both[0].app
    with app.state.database.write() as connection:
        connection.execute(text(command.replace("bottle", "tiny")))
    eventually(lambda: answer(404))
    assert [client.get("/health/ready").status_code for client in both] == [200, 200]
    assert both[1].post(f"/v1/models/tiny/versions/{first}:activate").status_code == 200
    eventually(lambda: answer(200))


def serving(client: TestClient) -> str | None:
    loaded_models: LoadedModels = client.app.state.loaded_models  # type: ignore[attr-defined]
    return loaded_models.serving_version("tiny")
