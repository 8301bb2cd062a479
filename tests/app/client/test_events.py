import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from app.client import (
    Client,
    GapEvent,
    InspectionEvent,
    PositionEvent,
    RefusedError,
    ReviewEvent,
    ServerSentEvent,
    UnreachableError,
)
from app.client.events import EventQuery, EventReader
from app.main import create_app
from app.settings import Settings
from tests.app.client.conftest import Clock
from tests.support.serving import running
from tests.support.waiting import eventually

Images = dict[str, list[bytes]]

_POSITION = b"id: P1\nevent: position\ndata: {}\n\n"
_GAP = 'id: P2\nevent: gap\ndata: {"detail": "zu sp\u00e4t\u2028"}\n\n'.encode()


def stream_of(wanted: EventQuery, clock: Clock | None = None) -> EventReader:
    return EventReader(wanted, patience=10, timeout=60, clock=clock or Clock())


def test_events_are_parsed_from_any_chunks() -> None:
    sent = b"retry: 2000\n\n: heartbeat\n\n" + _POSITION + _GAP + b"id: P3\nevent: later\ndata: {}\n\n"
    for size in (1, 7, 1000):
        stream = stream_of({})
        pieces = [sent[start : start + size] for start in range(0, len(sent), size)]
        events = [event for piece in pieces for event in stream.feed(piece)]
        assert [(event.id, event.data) for event in events] == [("P2", GapEvent(detail="zu sp\u00e4t\u2028"))]
        assert stream.pause() == 2
        assert stream.request()["headers"]["Last-Event-ID"] == "P3"


def test_positions_are_filtered_in_the_client() -> None:
    stream = stream_of({"positions": True, "station": "line-3"})
    assert [(event.id, event.data) for event in stream.feed(_POSITION)] == [("P1", PositionEvent())]
    assert stream.request()["params"] == {"station": "line-3"}


def test_unknown_frames_are_ignored() -> None:
    stream = stream_of({"after": "beginning", "category": None})
    assert stream.request()["params"] == {"after": "beginning"}
    assert "Last-Event-ID" not in stream.request()["headers"]
    for frame in (b"\n\n", b"data: x\n\n", b"id: 1\nevent: inspection\ndata: {}\n\n", b"retry: soon\n\n"):
        assert list(stream.feed(frame)) == []
    list(stream.feed(b"id: half"))
    stream.request()  # the connection broke
    assert next(iter(stream.feed(_GAP))).id == "P2"


LOST = UnreachableError("", sent=True)
ACCEPTED = httpx.Response(200, headers={"Content-Type": "text/event-stream"})


def test_patience_counts_from_a_lost_connection() -> None:
    clock = Clock()
    stream = stream_of({}, clock)

    def later(seconds: float) -> None:
        """Connect and let a while pass."""
        stream.request()
        clock.now += seconds

    stream.request()
    stream.accepted(ACCEPTED)
    clock.now += 1000  # quiet, and well
    stream.pause(LOST)
    later(9)
    stream.pause()  # ended in order
    later(9)
    stream.pause(LOST)
    later(9)
    list(stream.feed(_GAP))
    stream.pause(LOST)
    later(11)
    list(stream.feed(_POSITION))  # with which each connection begins
    with pytest.raises(UnreachableError):
        stream.pause(LOST)


def test_server_that_breaks_connections_counts_as_away() -> None:
    clock = Clock()
    stream = stream_of({}, clock)
    pauses: list[float] = []

    def break_for_long() -> None:
        for _ in range(1000):
            stream.request()
            stream.accepted(ACCEPTED)
            pauses.append(stream.pause(LOST))
            clock.now += pauses[-1]

    with pytest.raises(UnreachableError):
        break_for_long()
    assert 2 < sum(pauses) <= 10
    assert pauses[-1] > 10 * pauses[0]


def test_what_happens_is_heard(ask: Callable[..., Any], url: str, tiny_images: Images) -> None:
    def inspect(data: bytes, station: str) -> str:
        return str(ask(url, "inspect", "tiny", data, station=station).inspection_id)

    here = f"heard-{ask.__name__}"
    made = [inspect(data, here) for data in tiny_images["good"][:3]]
    inspect(tiny_images["good"][3], "elsewhere")
    heard = ask(url, "events", station=here, after="beginning", first=3)
    assert [event.data.inspection_id for event in heard] == made
    # From where another one stopped.
    assert ask(url, "events", station=here, after=heard[0].id, first=2) == heard[1:]
    ask(url, "review", made[0], "good", expected_revision=0)
    [later] = ask(url, "events", station=here, after=heard[-1].id, first=1)
    assert isinstance(later.data, ReviewEvent)
    assert later.data.verdict == "good"
    with pytest.raises(RefusedError):
        ask(url, "events", after="nonsense")


def test_reader_without_an_event_misses_none(ask: Callable[..., Any], url: str, tiny_images: Images) -> None:
    station = f"rare-{ask.__name__}"
    [first] = ask(url, "events", station=station, positions=True, first=1)
    assert isinstance(first.data, PositionEvent)
    made = ask(url, "inspect", "tiny", tiny_images["good"][0], station=station)
    [heard] = ask(url, "events", station=station, after=first.id, first=1)
    assert heard.data.inspection_id == made.inspection_id


@contextmanager
def serving(settings: Settings, port: int) -> Iterator[int]:
    config = uvicorn.Config(create_app(settings), port=port, log_config=None)
    with running(config, force=True) as listening:
        yield listening


def test_restarted_server_loses_no_event(
    tiny_bundle_store: Path, tmp_path: Path, tiny_images: Images
) -> None:
    settings = Settings(models=tiny_bundle_store, history=tmp_path / "restarted")
    heard: list[ServerSentEvent] = []

    def listen(url: str) -> None:
        with Client(url) as client:
            for event in client.events(station="line", after="beginning"):
                heard.append(event)
                if len(heard) == 2:
                    return

    made = []
    with serving(settings, 0) as port:
        url = f"http://127.0.0.1:{port}"
        listener = threading.Thread(target=listen, args=(url,))
        listener.start()
        with Client(url) as client:
            made.append(client.inspect("tiny", tiny_images["good"][0], station="line").inspection_id)
        eventually(lambda: bool(heard))
    with pytest.raises(UnreachableError), Client(url, patience=0.2) as client:
        next(client.events())
    with serving(settings, port), Client(url) as client:
        made.append(client.inspect("tiny", tiny_images["good"][1], station="line").inspection_id)
        listener.join(60)
    assert [e.data.inspection_id for e in heard if isinstance(e.data, InspectionEvent)] == made
