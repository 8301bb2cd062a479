"""Two servers beside each other on one PostgreSQL database."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.auth import keyring
from app.auth.key_store import KeyStore
from app.auth.permissions import COMMAND_LINE
from app.auth.sessions import COOKIE
from app.database import clock
from app.database.engine import Database
from app.database.leader import Leader
from app.database.notifications import Notifications
from app.main import create_app
from app.schemas.access import Role
from app.settings import Settings
from tests.app.history.rows import add, row
from tests.app.support.guard import SESSION_URL, assert_problem
from tests.support.postgres import Postgres
from tests.support.waiting import eventually


@contextmanager
def running(url: str, folder: Path, **settings: Any) -> Iterator[TestClient]:
    """Run a server on a database, with a folder of its own for history and, by default, models."""
    (folder / "models").mkdir(parents=True)
    own = {"models": folder / "models", "history": folder / "history", "database": url}
    with TestClient(create_app(Settings.model_validate(own | settings))) as client:
        yield client


def leads(client: TestClient) -> bool:
    app: Any = client.app
    leader: Leader = app.state.leader
    return leader.leads


@pytest.fixture
def admin(postgres_database: Database) -> dict[str, str]:
    """Headers with a key of an administrator."""
    return {"X-API-Key": KeyStore(postgres_database).create(COMMAND_LINE, Role.ADMIN, "admin")[1]}


@pytest.fixture
def database_url(postgres_database: Database) -> str:
    return postgres_database.engine.url.render_as_string(hide_password=False)


@pytest.fixture
def pair(
    monkeypatch: pytest.MonkeyPatch, database_url: str, admin: dict[str, str], tmp_path: Path
) -> Iterator[tuple[TestClient, TestClient]]:
    """Two servers that reload keys only when they are told to."""
    monkeypatch.setattr(keyring, "RELOAD_SECONDS", 3600)
    with running(database_url, tmp_path / "a") as a, running(database_url, tmp_path / "b") as b:
        yield a, b


@pytest.fixture
def without_notifications(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Notifications, "start", lambda _: None)


def test_second_server_without_a_store_is_warned(
    database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running(database_url, tmp_path / "a"):
        assert "another server uses this database" not in caplog.text
        with running(database_url, tmp_path / "b"):
            assert "another server uses this database" in caplog.text


@pytest.mark.usefixtures("without_notifications")
def test_login_works_at_the_other_server_at_once(
    pair: tuple[TestClient, TestClient], admin: dict[str, str]
) -> None:
    a, b = pair
    line = a.post("/v1/keys", json={"role": "line", "name": "line"}, headers=admin).json()["key"]
    assert b.post("/login", json={"key": line}).status_code == 200
    session = {"Cookie": f"{COOKIE}={b.cookies[COOKIE]}"}
    assert a.get(SESSION_URL, headers=session).json()["role"] == "line"
    unknown = a.get(SESSION_URL, headers={"Cookie": f"{COOKIE}=unknown"})
    assert_problem(unknown, 401, "unauthenticated")


def test_revocation_is_notified(pair: tuple[TestClient, TestClient], admin: dict[str, str]) -> None:
    a, b = pair
    made = a.post("/v1/keys", json={"role": "line", "name": "line"}, headers=admin).json()
    line = {"X-API-Key": made["key"]}
    assert b.get(SESSION_URL, headers=line).status_code == 200
    assert a.delete(f"/v1/keys/{made['id']}", headers=admin).status_code == 204
    eventually(lambda: b.get(SESSION_URL, headers=line).status_code == 401)


def test_unknown_key_without_database_is_no_401(
    postgres: Postgres, database_url: str, admin: dict[str, str], tmp_path: Path
) -> None:
    unknown = f"fg_{'0' * 16}_{'x' * 43}"
    with running(database_url, tmp_path / "a") as client:
        postgres.stop()
        try:
            assert client.get(SESSION_URL, headers=admin).status_code == 200
            refused = client.get(SESSION_URL, headers={"X-API-Key": unknown})
            assert refused.json()["type"] == "history-unavailable"
            assert client.post("/login", json={"key": unknown}).json()["type"] == "history-unavailable"
        finally:
            postgres.start()


def test_drift_is_the_same_at_each_server(
    database_url: str, store: Path, tmp_path: Path, tiny_images: dict[str, list[bytes]]
) -> None:
    settings: dict[str, Any] = {"models": store, "drift_window": 20}
    with (
        running(database_url, tmp_path / "a", **settings) as a,
        running(database_url, tmp_path / "b", **settings) as b,
    ):
        assert [leads(a), leads(b)] == [True, False]
        for number, image in enumerate([*tiny_images["good"], *tiny_images["defect"]]):
            assert (a, b)[number % 2].post("/v1/models/tiny/predict", content=image).status_code == 200

        def drift(client: TestClient) -> dict[str, Any]:
            report: dict[str, Any] = client.get("/v1/models/tiny/drift").json()
            return report

        eventually(lambda: drift(a)["inspections"] == drift(b)["inspections"] == 16)
        assert drift(a) == drift(b)


def test_deletion_confirmed_at_another_server_runs_in_the_leader(
    postgres_database: Database, database_url: str, tmp_path: Path
) -> None:
    old = clock.now_ms() - 2 * 24 * 3_600_000
    add(postgres_database, *(row(old, has_pictures=False) for _ in range(120)), row())
    settings = {"retention_pass_days": 1}
    with (
        running(database_url, tmp_path / "a", **settings) as a,
        running(database_url, tmp_path / "b", **settings) as b,
    ):
        assert leads(a)
        eventually(lambda: b.get("/v1/deletions").json()["deletions"] != [])
        assert b.post("/v1/deletions/age/confirm").json()["count"] == 120
        eventually(lambda: len(a.get("/v1/inspections?limit=200").json()["inspections"]) == 1)
        eventually(lambda: b.get("/v1/deletions").json()["deletions"] == [])


def test_restart_of_the_database_leaves_one_leader(
    postgres: Postgres, pair: tuple[TestClient, TestClient], admin: dict[str, str]
) -> None:
    a, b = pair
    postgres.stop()
    eventually(lambda: not leads(a) and not leads(b))
    postgres.start()
    eventually(lambda: leads(a) or leads(b))
    assert leads(a) != leads(b)
    made = a.post("/v1/keys", json={"role": "line", "name": "line"}, headers=admin)
    assert made.status_code == 201
    assert b.get(SESSION_URL, headers={"X-API-Key": made.json()["key"]}).status_code == 200
