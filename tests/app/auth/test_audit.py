import asyncio
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import select
from starlette.requests import Request
from starlette.testclient import TestClient

from app.auth.audit import Audit, audited
from app.auth.permissions import ANONYMOUS, Caller
from app.database.engine import Database
from app.database.tables import audit as table
from app.schemas.access import Role
from flows.fastflow.bundle import bundle, models_folder
from tests.app.conftest import history_of
from tests.app.support.bundles import copy_version
from tests.app.support.services import create_service
from tests.support.postgres import Postgres
from tests.support.waiting import eventually, until

CHANGE = {"target_fpr": 0.3, "reason": "too strict"}


@pytest.fixture
def audit(database: Database) -> Audit:
    return Audit(database)


def test_filters(audit: Audit) -> None:
    for action in ("key.create", "key.revoke"):
        for target in ("x", "y"):
            audit.write(ANONYMOUS, action, target, "done")
    assert len(audit.page(10, action="key.create")) == 2
    assert len(audit.page(10, action="key.create", target="x")) == 1
    assert audit.page(10, target="x' OR '1'='1") == []
    assert audit.page(10, target="x\x00") == []  # PostgreSQL would fail on it


@pytest.mark.parametrize("target", ["a\x00b", "a\nb", "\ud800", "a\u202eb", "a" * 5000, "\x1b[2J"])
def test_target_is_stored_and_cannot_forge_a_line(
    audit: Audit, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "flowgauge.audit")
    audit.write(Caller("1" * 16, target[:128], Role.ADMIN), "a", target, "done", {"x": target}, "r")
    [entry] = audit.page(10)
    assert len(entry.target) <= 256
    assert entry.target.isprintable()
    assert entry.actor.isprintable()
    assert entry.detail == {"x": target}
    assert caplog.messages
    assert all(message.isprintable() for message in caplog.messages)


def test_version_that_serves_on_two_servers_is_recorded_once(postgres: Postgres) -> None:
    with postgres.database() as url:
        databases = [Database(url), Database(url)]
        databases[0].upgrade()
        both = [Audit(database) for database in databases]
        for version in ("v1", "v2", "v1"):
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda one, version=version: one.write_serving(f"tiny/{version}", {}), both))
        entries = both[0].page(10, action="model.serves")
        assert [entry.target for entry in entries] == ["tiny/v1", "tiny/v2", "tiny/v1"]
        for database in databases:
            database.close()


def test_entry_is_part_of_the_transaction(audit: Audit, database: Database) -> None:
    def act() -> None:
        with database.write() as connection:
            audit.write(ANONYMOUS, "a", "t", "done", connection=connection)
            raise RuntimeError("the act fails")

    with pytest.raises(RuntimeError):
        act()
    with database.read() as connection:
        assert connection.execute(select(table)).all() == []


@pytest.fixture
def client(store: Path) -> Iterator[TestClient]:
    with create_service(store) as client:
        yield client


def entries(client: TestClient, action: str) -> list[dict[str, Any]]:
    """Return the entries of an action, oldest first."""
    found = client.get("/v1/audit", params={"action": action}).json()["entries"]
    return [*reversed(found)]


def change(client: TestClient) -> int:
    tag = client.get("/v1/models/tiny/thresholds").headers["ETag"]
    return client.patch("/v1/models/tiny/thresholds", json=CHANGE, headers={"If-Match": tag}).status_code


def test_action_is_recorded_before_and_after(client: TestClient) -> None:
    assert change(client) == 200
    begun, done = entries(client, "model.thresholds")
    assert (begun["outcome"], done["outcome"]) == ("begun", "done")
    assert begun["detail"] == {"reason": "too strict", "to": {"target_fpr": 0.3}}
    assert done["detail"] == {
        **begun["detail"],
        "begun": begun["number"],
        "from": {"target_fpr": None, "review_fpr": None},
        "revision": 1,
    }
    assert begun["request_id"] == done["request_id"]


@pytest.mark.one_server("renames a table, which is an outage to SQLite alone")
def test_action_without_a_log_is_refused(client: TestClient, store: Path) -> None:
    database = history_of(client).database
    with database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE audit RENAME TO away")
    assert change(client) == 503
    with database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE away RENAME TO audit")
    assert client.get("/v1/models/tiny/thresholds").json()["target_fpr"] is None
    assert entries(client, "model.thresholds") == []


@pytest.mark.anyio
async def test_interrupted_action_stays_begun(audit: Audit) -> None:
    app = FastAPI()
    app.state.audit = audit
    state = {"request_id": "r-1", "caller": ANONYMOUS}
    request = Request({"type": "http", "headers": [], "app": app, "state": state})

    async def act() -> None:
        async with audited(request, "model.delete", "tiny/v1"):
            await asyncio.sleep(60)

    task = asyncio.create_task(act())
    await until(lambda: audit.page(1) != [])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    [entry] = audit.page(10)
    assert (entry.outcome, entry.request_id) == ("begun", "r-1")


@pytest.mark.one_server("changes the models folder by hand")
def test_serving_version_is_recorded(
    client: TestClient, store: Path, tiny_images: dict[str, list[bytes]]
) -> None:
    def serving() -> str:
        answer = client.post("/v1/models/tiny/predict?store=false", content=tiny_images["good"][0])
        version: str = answer.json()["model"]["version"]
        return version

    first = models_folder.resolve(store, "tiny").name
    assert serving() == first
    second = copy_version(store, "zzz")
    models_folder.activate(store, "tiny", "zzz")  # as a training container does
    eventually(lambda: serving() == "zzz")
    eventually(lambda: len(entries(client, "model.serves")) >= 2)
    noted = entries(client, "model.serves")
    assert {entry["actor"] for entry in noted} == {"server"}
    assert [entry["target"] for entry in noted] == [f"tiny/{first}", "tiny/zzz"]
    sha256 = bundle.manifest_sha256(second, bundle.read_manifest(second))
    assert noted[1]["detail"] == {"sha256": sha256, "previous": first}
