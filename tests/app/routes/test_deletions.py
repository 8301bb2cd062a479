from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.database import clock
from app.main import create_app
from app.settings import Settings
from tests.app.conftest import history_of
from tests.app.history.rows import add, row
from tests.support.waiting import eventually

DAY = 24 * 3_600_000


@pytest.fixture
def held(tmp_path: Path) -> Iterator[TestClient]:
    """A service whose retention, set for the first time, would delete all but one inspection."""
    (tmp_path / "models").mkdir()
    settings = Settings(models=tmp_path / "models", history=tmp_path / "history", retention_pass_days=1)
    with TestClient(create_app(settings.model_copy(update={"retention_pass_days": None}))) as client:
        old = clock.now_ms() - 2 * DAY
        add(history_of(client).database, *(row(old, has_pictures=False) for _ in range(120)), row())
    with TestClient(create_app(settings)) as client:
        eventually(lambda: client.get("/v1/deletions").json()["deletions"] != [])
        yield client


def rows(client: TestClient) -> int:
    return len(client.get("/v1/inspections?limit=200").json()["inspections"])


def test_held_deletion_is_shown_and_starts_when_confirmed(held: TestClient) -> None:
    [shown] = held.get("/v1/deletions").json()["deletions"]
    assert (shown["kind"], shown["count"], shown["total"]) == ("age", 120, 121)
    assert "is the clock right" in shown["reason"]
    metrics = held.get("/metrics").text
    assert 'flowgauge_deletion_held{kind="age"} 1' in metrics
    assert 'flowgauge_deletion_held{kind="size"} 0' in metrics
    page = held.get("/products", headers={"Accept": "text/html"}).text
    assert 'class="confirm-deletion" data-kind="age"' in page
    assert "120 of 121 inspections" in page
    assert rows(held) == 121

    answer = held.post("/v1/deletions/age/confirm")
    assert (answer.status_code, answer.json()["count"]) == (200, 120)
    eventually(lambda: rows(held) == 1)
    assert held.get("/v1/deletions").json() == {"deletions": []}
    assert "confirm-deletion" not in held.get("/products").text
    entries = held.get("/v1/audit").json()["entries"]
    acts = [(entry["target"], entry["outcome"]) for entry in entries if entry["action"] == "history.delete"]
    assert acts == [("age", "done"), ("age", "begun")]
    assert held.post("/v1/deletions/age/confirm").json()["type"] == "conflict"
