from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.auth.key_store import KeyStore
from app.auth.permissions import COMMAND_LINE
from app.database.engine import Database
from app.events import feed as feeds
from app.events import log
from app.events.cursor import Cursors
from app.main import create_app
from app.schemas.access import Role
from app.settings import Settings
from tests.app.conftest import Serve
from tests.support.event_stream import Heard, listening

Images = dict[str, list[bytes]]


@dataclass(frozen=True)
class Line:
    """A service of the test's own, with the tiny model."""

    app: FastAPI
    client: httpx.Client

    def predict(self, image: bytes, **query: Any) -> dict[str, Any]:
        answer = self.client.post("/v1/models/tiny/predict", params=query, content=image)
        assert answer.status_code == 200, answer.text
        inspection: dict[str, Any] = answer.json()
        return inspection


@pytest.fixture
def line(store: Path, serve_http: Serve) -> Iterator[Line]:
    app = create_app(Settings(models=store, device="cpu", max_readers=3))
    with serve_http(app) as url, httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        yield Line(app, client)


def inspections(heard: Iterator[Heard], count: int) -> list[Heard]:
    return list(islice((event for event in heard if event.kind == "inspection"), count))


def test_an_inspection_is_heard_and_its_links_work(line: Line, tiny_images: Images) -> None:
    with listening(line.client) as heard:
        assert next(heard).kind == "position"
        answer = line.predict(tiny_images["defect"][0], station="line-3", part_id="P-1")
        (event,) = inspections(heard, 1)
    assert event.data == {
        "inspection_id": answer["inspection_id"],
        "created_at": line.client.get(answer["links"]["inspection"]).json()["created"],
        "category": "tiny",
        "version": answer["model"]["version"],
        "station": "line-3",
        "part_id": "P-1",
        "file_name": None,
        "decision": answer["decision"],
        "warnings": answer["warnings"],
        "score": answer["score"],
        "p_value": answer["p_value"],
        "audit": False,
        "links": answer["links"],
    }
    for link in event.data["links"].values():
        assert line.client.get(link).status_code == 200


def test_reconnected_reader_gets_missed_events_once(line: Line, tiny_images: Images) -> None:
    image = tiny_images["good"][0]
    with listening(line.client) as heard:
        place = next(heard).id
        first = line.predict(image)
        (event,) = inspections(heard, 1)
    missed = [line.predict(image) for _ in range(3)]
    with listening(line.client, last=event.id) as heard:
        ids = [e.data["inspection_id"] for e in inspections(heard, 3)]
        live = line.predict(image)
        ids += [e.data["inspection_id"] for e in inspections(heard, 1)]
    assert ids == [answer["inspection_id"] for answer in (*missed, live)]
    # An id without an event leads there too. The header goes before the query, which stays the same.
    for query in ({"after": place}, {"after": "beginning"}):
        with listening(line.client, **query) as heard:
            assert inspections(heard, 1)[0].data["inspection_id"] == first["inspection_id"]
        with listening(line.client, last=event.id, **query) as heard:
            assert inspections(heard, 1)[0].data["inspection_id"] == missed[0]["inspection_id"]


def test_filters(line: Line, tiny_images: Images) -> None:
    made = [
        line.predict(image, station=station)
        for image in (tiny_images["good"][0], tiny_images["defect"][0])
        for station in ("s1", "s2")
    ]
    assert len({answer["decision"] for answer in made}) == 2
    for query, expected in (
        ({"station": "s1", "decision": ["REJECT", "REVIEW"]}, made[2:3]),
        ({"category": "tiny", "station": "s2"}, made[1::2]),
    ):
        # The last one is made meanwhile: nothing else is on its way before it.
        with listening(line.client, after="beginning", **query) as heard:
            made.append(line.predict(tiny_images["defect"][0], station=query["station"]))
            ids = [event.data["inspection_id"] for event in inspections(heard, len(expected) + 1)]
        assert ids == [answer["inspection_id"] for answer in (*expected, made[-1])]
    with listening(line.client, after="beginning", category="grid") as heard:
        assert next(heard).kind == "position"


def test_what_is_no_id_is_refused(line: Line) -> None:
    for request in ({"params": {"after": "7"}}, {"headers": {"Last-Event-ID": "x" * 22}}):
        answer = line.client.get("/v1/events", **request)  # type: ignore[arg-type]
        assert (answer.status_code, answer.json()["type"]) == (400, "invalid-request"), answer.text
        assert "is no `id` of an event" in answer.json()["detail"]


def test_a_gap_is_said(line: Line, tiny_images: Images) -> None:
    with listening(line.client, after="beginning") as heard:  # written beside what comes below, and before
        while next(heard).kind != "model":
            pass
    elsewhere = Cursors("00000000-0000-0000-0000-000000000001").at(1)
    with listening(line.client, last=elsewhere) as heard:
        gap, position = next(heard), next(heard)
        assert (gap.kind, position.kind) == ("gap", "position")
        assert "another history" in gap.data["detail"]
        made = [line.predict(tiny_images["good"][0]) for _ in range(3)]
        events = inspections(heard, 3)
    with line.app.state.database.write() as connection:
        log.trim(connection, keep=1, limit=1000)
    with listening(line.client, last=events[0].id) as heard:
        gap = next(heard)
        assert gap.kind == "gap"
        assert "no longer kept" in gap.data["detail"]
        (last,) = inspections(heard, 1)
        assert last.data["inspection_id"] == made[2]["inspection_id"]
    with listening(line.client, last=events[1].id) as heard:
        assert next(event for event in heard if event.kind != "position") == last


def test_an_id_of_an_event_that_the_loss_of_power_took_has_a_gap(line: Line, tiny_images: Images) -> None:
    """Its number is given again, to an event that the listener has not heard."""
    with listening(line.client) as heard:
        next(heard)
        line.predict(tiny_images["good"][0])
        (lost,) = inspections(heard, 1)
    number = line.app.state.feed.cursors.read(lost.id)
    ahead = line.app.state.feed.cursors.at(number + 3)
    with listening(line.client, last=ahead) as heard:
        gap = next(heard)
        assert gap.kind == "gap"
        assert "power failure" in gap.data["detail"]
        made = [line.predict(tiny_images["good"][0]) for _ in range(2)]
        assert [event.data["inspection_id"] for event in inspections(heard, 2)] == [
            answer["inspection_id"] for answer in made
        ]


@pytest.fixture
def guarded(tiny_bundle_store: Path, tmp_path: Path, serve_http: Serve) -> Iterator[tuple[str, FastAPI]]:
    """A service with keys, of which nothing is heard but what a test does; its URL."""
    settings = Settings(models=tiny_bundle_store, device="cpu", preload=False)
    database = Database(settings.database_url)
    database.upgrade()
    KeyStore(database).create(COMMAND_LINE, Role.ADMIN, "first")
    database.close()
    app = create_app(settings)
    with serve_http(app) as url:
        yield url, app


def keyed(guarded: tuple[str, FastAPI], role: Role, categories: list[str] | None = None) -> httpx.Client:
    url, app = guarded
    _, text = app.state.keys.create(COMMAND_LINE, role, "a key", categories=categories)
    app.state.keyring.reload()
    return httpx.Client(base_url=url, headers={"X-API-Key": text}, timeout=60, trust_env=False)


def test_a_key_for_categories_hears_of_no_others(
    guarded: tuple[str, FastAPI], tiny_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "HEARTBEAT_SECONDS", 0.1)
    with keyed(guarded, Role.ADMIN) as admin, keyed(guarded, Role.VIEWER, ["grid"]) as grid:
        assert grid.get("/v1/events?category=tiny").status_code == 403
        assert admin.post("/v1/models/tiny/predict", content=tiny_images["good"][0]).status_code == 200
        with listening(admin, after="beginning") as others:
            (event,) = inspections(others, 1)
        with listening(grid, after="beginning") as heard:
            until: list[Heard] = []
            while not until or until[-1].id != event.id:
                until.append(next(heard))
            assert {heard.kind for heard in until} <= {"position", "comment"}


@pytest.mark.parametrize("sent", ["key", "session"])
def test_a_key_that_is_revoked_hears_no_more(
    guarded: tuple[str, FastAPI], tiny_images: Images, sent: str
) -> None:
    with keyed(guarded, Role.ADMIN) as admin, keyed(guarded, Role.VIEWER) as viewer:
        key = viewer.headers["X-API-Key"]
        if sent == "session":
            del viewer.headers["X-API-Key"]
            assert viewer.post("/login", json={"key": key}).status_code == 200
        with listening(viewer) as heard:
            next(heard)
            assert admin.delete(f"/v1/keys/{key.split('_')[1]}").status_code < 300
            guarded[1].state.keyring.reload()
            admin.post("/v1/models/tiny/predict", content=tiny_images["good"][0])
            assert next(heard) == Heard("comment", "", "the key is no longer valid")
            assert list(heard) == []
        assert viewer.get("/v1/events").status_code == 401
