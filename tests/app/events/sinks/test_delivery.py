import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from sqlalchemy import select

from app.database.engine import Database
from app.database.tables import deliveries
from app.events import log
from app.events.feed import Feed
from app.events.log import EventSelector, NewEvent, NumberedEvent
from app.events.sinks import delivery as module
from app.events.sinks import positions
from app.events.sinks.delivery import Delivery
from app.events.sinks.sink import DeliveryError, Sink
from tests.support.waiting import until

INSPECTIONS = EventSelector(kind=frozenset({"inspection"}))

pytestmark = pytest.mark.anyio


@dataclass
class Memory(Sink):
    """A sink that records events and fails on demand."""

    name: str = "memory"
    description: str = "in memory"
    events: EventSelector = INSPECTIONS
    attempts: int = 3
    fails: Callable[[str], Exception | None] = lambda _: None
    got: list[tuple[str, bool]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    async def deliver(self, event: NumberedEvent, redelivered: bool) -> None:
        name = json.loads(event.data)
        self.asked.append(name)
        await asyncio.sleep(0.001)
        if error := self.fails(name):
            raise error
        self.got.append((name, redelivered))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.got]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(module, "MAX_DELAY", 0.01)
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.01)


def add(database: Database, *names: str, station: str | None = None, kind: log.Kind = "inspection") -> None:
    with database.write() as connection:
        log.append(
            connection, [NewEvent(kind, "bottle", station, "PASS", json.dumps(name)) for name in names]
        )


def position(database: Database) -> int:
    with database.read() as connection:
        number: int = connection.execute(select(deliveries.c.number)).scalar_one()
    return number


@asynccontextmanager
async def delivering(database: Database, sink: Memory) -> AsyncIterator[Delivery]:
    feed = Feed(database, 1)
    await feed.open()
    delivery = Delivery(sink, database, feed)
    await delivery.open()
    try:
        async with asyncio.timeout(60):
            yield delivery
    finally:
        await delivery.close()
        await feed.close()


async def register(database: Database) -> None:
    """Let a sink begin at the present events, and stop it."""
    async with delivering(database, Memory()):
        pass


async def test_new_sink_starts_now_with_its_selection(database: Database) -> None:
    add(database, "before")
    sink = Memory()
    async with delivering(database, sink) as delivery:
        add(database, "a", "b")
        add(database, "model", kind="model")
        add(database, "c")
        await until(lambda: delivery.lag == 0 and len(sink.got) == 3)
    assert sink.got == [("a", False), ("b", False), ("c", False)]
    assert delivery.counts == {"sent": 3, "retried": 0, "failed": 0, "lost": 0}
    assert position(database) == 5


async def test_uncertain_events_are_marked_as_redelivered(database: Database) -> None:
    """The process ends after delivering a page, before storing the position."""
    await register(database)
    add(database, *map(str, range(70)))
    sink = Memory()
    async with delivering(database, sink):
        await until(lambda: len(sink.got) == 70)
        add(database, "new")
        await until(lambda: len(sink.got) == 71)
    assert sorted(name for name, again in sink.got if again) == sorted(map(str, range(64)))


async def test_nothing_is_delivered_without_stored_positions(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise events after the first page could be redelivered unmarked."""
    sink = Memory()
    async with delivering(database, sink) as delivery:
        with database.write() as connection:
            connection.exec_driver_sql("ALTER TABLE deliveries RENAME TO away")
        add(database, "a")
        await until(lambda: delivery.failing)
        add(database, "b")
        await until(lambda: caplog.text.count("cannot read events or store the position") > 3)
        assert sink.names == ["a"]
        with database.write() as connection:
            connection.exec_driver_sql("ALTER TABLE away RENAME TO deliveries")
        await until(lambda: len(sink.got) == 2 and not delivery.failing)
    assert sink.got == [("a", False), ("b", False)]
    assert position(database) == 2


async def test_stations_are_ordered_and_independent(database: Database) -> None:
    stuck = 5

    def fails(name: str) -> DeliveryError | None:
        nonlocal stuck
        if name == "s1-0" and stuck:
            stuck -= 1
            return DeliveryError("not now", reached=True)
        return None

    sink = Memory(fails=fails)
    async with delivering(database, sink):
        for i in range(20):
            for station in ("s1", "s2", None):
                add(database, f"{station}-{i}", station=station)
        await until(lambda: len(sink.got) == 60)
    by_station: dict[str, list[int]] = defaultdict(list)
    for name in sink.names:
        station, number = name.split("-")
        by_station[station].append(int(number))
    assert all(numbers == list(range(20)) for numbers in by_station.values())
    assert sink.names.index("s2-0") < sink.names.index("s1-0")
    assert [name for name, again in sink.got if again] == ["s1-0"]


async def test_unreached_event_is_not_redelivered(database: Database) -> None:
    failures = [DeliveryError("cannot be reached"), DeliveryError("cannot be reached")]
    sink = Memory(attempts=1, fails=lambda _: failures.pop() if failures else None)
    async with delivering(database, sink) as delivery:
        add(database, "a")
        await until(lambda: len(sink.got) == 1)
        assert delivery.failure is None
    assert delivery.counts["retried"] == 2
    assert sink.got == [("a", False)]


@pytest.mark.parametrize("final", [False, True])
async def test_failed_event_is_recorded_and_skipped(
    database: Database, final: bool, caplog: pytest.LogCaptureFixture
) -> None:
    refusal = DeliveryError("500", reached=True, counts=True, final=final)
    sink = Memory(fails=lambda name: refusal if name == "b" else None)
    async with delivering(database, sink) as delivery:
        add(database, *"ab")
        await until(lambda: (delivery.counts["failed"], delivery.lag) == (1, 0))
        assert delivery.failing  # until something is delivered again
        add(database, "c")
        await until(lambda: len(sink.got) == 2 and not delivery.failing)
    assert sink.asked == ["a", *"b" * (1 if final else 3), "c"]
    assert delivery.counts == {"sent": 2, "retried": 0 if final else 2, "failed": 1, "lost": 0}
    assert position(database) == 3
    assert "memory: event 2 is given up: 500" in caplog.text
    with database.read() as connection:
        [(_, reason, data)] = positions.given_up(connection, "memory")
    assert (reason, data) == ("500", '"b"')


async def test_unexpected_error_affects_only_its_event(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    sink = Memory(fails=lambda name: OverflowError("too large") if name == "b" else None)
    async with delivering(database, sink) as delivery:
        add(database, *"abc", station="s1")
        add(database, *"def", station="s2")
        await until(lambda: delivery.counts["sent"] == 5)
    assert sorted(sink.names) == list("acdef")
    assert sink.asked.count("b") == sink.attempts == 3
    assert (delivery.counts["failed"], delivery.counts["retried"]) == (1, 2)
    assert "OverflowError: too large" in caplog.text
    assert position(database) == 6


async def test_requested_wait_is_kept_and_later_ones_grow(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [DeliveryError("429", wait=17.5), *(DeliveryError("500") for _ in range(5))]
    sink = Memory(fails=lambda _: failures.pop(0) if failures else None)
    waits: list[float] = []

    async def note(_: Delivery, seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(Delivery, "_pause", note)
    async with delivering(database, sink):
        add(database, "a")
        await until(lambda: len(sink.got) == 1)
    first, *rest = waits
    assert first == 17.5
    # Up to half of each is taken off by chance.
    for wait, longest in zip(rest, (0.002, 0.004, 0.008, 0.01, 0.01), strict=True):
        assert longest / 2 <= wait <= longest


async def test_sink_behind_the_stored_events_counts_the_loss(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    await register(database)
    add(database, *map(str, range(10)))
    with database.write() as connection:
        log.trim(connection, keep=2, limit=1000)
    sink = Memory()
    async with delivering(database, sink) as delivery:
        await until(lambda: len(sink.got) == 2)
    assert sink.names == ["8", "9"]
    assert delivery.counts["lost"] == 8
    assert "FLOWGAUGE_EVENTS_KEPT" in caplog.text


async def test_waiting_event_is_not_skipped_at_the_stop(database: Database) -> None:
    await register(database)
    add(database, "stuck", station="s1")
    add(database, "through", station="s2")
    first = Memory(fails=lambda name: DeliveryError("not now") if name == "stuck" else None)
    second = Memory()
    async with delivering(database, first):
        await until(lambda: first.names == ["through"])
    assert position(database) == 0
    async with delivering(database, second):
        await until(lambda: len(second.got) == 2)
    assert sorted(second.names) == ["stuck", "through"]
