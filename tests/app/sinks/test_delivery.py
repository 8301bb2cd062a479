import asyncio
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import select

from app.database.engine import Database
from app.database.tables import deliveries
from app.feed import log
from app.feed.feed import Feed
from app.feed.log import Event, EventFilter, NewEvent
from app.sinks import delivery as module
from app.sinks import positions
from app.sinks.delivery import Delivery, Sink, Undelivered
from tests.app.databases import with_identity
from tests.support.waiting import until

INSPECTIONS = EventFilter(kind=frozenset({"inspection"}))


@dataclass
class Memory(Sink):
    """A sink that keeps what it is given, and fails as it is told."""

    name: str = "memory"
    description: str = "in memory"
    wanted: EventFilter = INSPECTIONS
    attempts: int = 3
    fails: Callable[[str], Exception | None] = lambda _: None
    seconds: float = 0.0
    got: list[tuple[str, bool]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    connected: asyncio.Event = field(default_factory=asyncio.Event)

    async def open(self) -> None:
        self.connected.set()

    async def close(self) -> None:
        self.connected.clear()

    @property
    def is_ready(self) -> bool:
        return self.connected.is_set()

    async def ready(self) -> None:
        await self.connected.wait()

    async def deliver(self, event: Event, redelivered: bool) -> None:
        name = json.loads(event.data)
        self.asked.append(name)
        await asyncio.sleep(self.seconds)
        if error := self.fails(name):
            raise error
        self.got.append((name, redelivered))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.got]


def add(database: Database, *names: str, station: str | None = None, kind: str = "inspection") -> None:
    with database.write() as connection:
        happenings = [NewEvent(kind, "bottle", station, "PASS", json.dumps(name)) for name in names]  # type: ignore[arg-type]
        log.append(connection, happenings)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return with_identity(tmp_path)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(module, "LONGEST_DELAY", 0.01)


@dataclass
class Run:
    database: Database

    def __call__(
        self, sink: Memory, work: Callable[[Delivery], Awaitable[None]], *, close: bool = True
    ) -> Delivery:
        """Deliver while something is done; with close=False the process ends without a word."""

        async def do() -> Delivery:
            feed = Feed(self.database, 1)
            await feed.open()
            delivery = Delivery(sink, self.database, feed)
            await delivery.open()
            try:
                async with asyncio.timeout(60):
                    await work(delivery)
            finally:
                if close:
                    await delivery.close()
                await feed.close()
            return delivery

        return asyncio.run(do())

    @property
    def position(self) -> int:
        with self.database.read() as connection:
            number: int = connection.execute(select(deliveries.c.number)).scalar_one()
            return number


@pytest.fixture
def run(database: Database) -> Run:
    return Run(database)


def test_a_new_sink_begins_now_and_gets_what_is_wanted(database: Database, run: Run) -> None:
    add(database, "before")
    sink = Memory()

    async def work(delivery: Delivery) -> None:
        add(database, "a", "b")
        add(database, "model", kind="model")
        add(database, "c")
        await until(lambda: delivery.lag == 0 and len(sink.got) == 3)

    delivery = run(sink, work)
    assert sink.got == [("a", False), ("b", False), ("c", False)]
    assert delivery.counts == {"sent": 3, "retried": 0, "failed": 0, "lost": 0}
    assert run.position == 5


async def nothing(_: Delivery) -> None:
    pass


def test_what_may_have_been_delivered_comes_again_and_says_so(database: Database, run: Run) -> None:
    """The process ends after the delivery of a page and before the position is kept."""
    run(Memory(), nothing)
    add(database, *map(str, range(70)))
    sink = Memory()

    async def work(_: Delivery) -> None:
        await until(lambda: len(sink.got) == 70)
        add(database, "new")
        await until(lambda: len(sink.got) == 71)

    run(sink, work)
    assert sorted(name for name, again in sink.got if again) == sorted(map(str, range(64)))


def test_nothing_is_delivered_while_positions_cannot_be_kept(
    database: Database, run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Else more than the first page after a restart could have been delivered before."""
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.01)
    sink = Memory()

    async def work(delivery: Delivery) -> None:
        with database.write() as connection:
            connection.exec_driver_sql("ALTER TABLE deliveries RENAME TO away")
        add(database, "a")
        await until(lambda: delivery.failing)
        add(database, "b")
        await until(lambda: caplog.text.count("cannot be read or counted") > 3)
        assert sink.names == ["a"]
        with database.write() as connection:
            connection.exec_driver_sql("ALTER TABLE away RENAME TO deliveries")
        await until(lambda: len(sink.got) == 2 and not delivery.failing)

    run(sink, work)
    assert sink.got == [("a", False), ("b", False)]
    assert run.position == 2


def test_order_is_kept_by_station_and_stations_do_not_wait_for_each_other(
    database: Database, run: Run
) -> None:
    stuck = {"s1-0": 5}

    def fails(name: str) -> Undelivered | None:
        if stuck.get(name, 0):
            stuck[name] -= 1
            return Undelivered("not now", reached=True)
        return None

    sink = Memory(fails=fails, seconds=0.001)

    async def work(_: Delivery) -> None:
        for i in range(20):
            for station in ("s1", "s2", None):
                add(database, f"{station}-{i}", station=station)
        await until(lambda: len(sink.got) == 60)

    run(sink, work)
    by_station: dict[str, list[int]] = defaultdict(list)
    for name in sink.names:
        station, number = name.split("-")
        by_station[station].append(int(number))
    assert all(numbers == list(range(20)) for numbers in by_station.values())
    assert [name for name, again in sink.got if again] == ["s1-0"]


def test_what_never_arrived_is_no_redelivery(database: Database, run: Run) -> None:
    failures = [Undelivered("cannot be reached"), Undelivered("cannot be reached")]
    sink = Memory(attempts=1, fails=lambda _: failures.pop() if failures else None)

    async def work(delivery: Delivery) -> None:
        add(database, "a")
        await until(lambda: len(sink.got) == 1)
        assert delivery.failure is None

    delivery = run(sink, work)
    assert sink.got == [("a", False)]
    assert delivery.counts["retried"] == 2


@pytest.mark.parametrize("final", [False, True])
def test_failed_event_is_recorded_and_the_next_ones_go_on(
    database: Database, run: Run, final: bool, caplog: pytest.LogCaptureFixture
) -> None:
    refusal = Undelivered("500", reached=True, counts=True, final=final)
    sink = Memory(fails=lambda name: refusal if name == "b" else None)

    async def work(delivery: Delivery) -> None:
        add(database, *"ab")
        await until(lambda: (delivery.counts["failed"], delivery.lag) == (1, 0))
        assert delivery.failing  # until something is delivered again
        add(database, "c")
        await until(lambda: len(sink.got) == 2 and not delivery.failing)

    delivery = run(sink, work)
    assert sink.asked == ["a", *"b" * (1 if final else 3), "c"]
    assert delivery.counts == {"sent": 2, "retried": 0 if final else 2, "failed": 1, "lost": 0}
    assert run.position == 3
    assert "memory: event 2 is given up: 500" in caplog.text
    with database.read() as connection:
        [(_, reason, data)] = positions.given_up(connection, "memory")
    assert (reason, data) == ("500", '"b"')


def test_an_error_that_nobody_foresaw_is_a_failed_attempt_of_its_event_alone(
    database: Database, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    sink = Memory(fails=lambda name: OverflowError("too large") if name == "b" else None, seconds=0.001)

    async def work(delivery: Delivery) -> None:
        add(database, *"abc", station="s1")
        add(database, *"def", station="s2")
        await until(lambda: delivery.counts["sent"] == 5)

    delivery = run(sink, work)
    assert sorted(sink.names) == list("acdef")
    assert sink.asked.count("b") == sink.attempts == 3
    assert (delivery.counts["failed"], delivery.counts["retried"]) == (1, 2)
    assert "OverflowError: too large" in caplog.text
    assert run.position == 6


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Between attempts nobody waits: these are the seconds that would have been waited for."""
    noted: list[float] = []
    pause = Delivery._pause

    async def note(self: Delivery, seconds: float) -> None:
        noted.append(seconds)
        await pause(self, 0)

    monkeypatch.setattr(Delivery, "_pause", note)
    return noted


def test_the_receivers_wish_to_wait_is_honoured_and_the_next_waits_are_longer_and_longer(
    database: Database, run: Run, waits: list[float]
) -> None:
    failures = [Undelivered("429", wait=17.5), *(Undelivered("500") for _ in range(5))]
    sink = Memory(fails=lambda _: failures.pop(0) if failures else None)

    async def work(_: Delivery) -> None:
        add(database, "a")
        await until(lambda: len(sink.got) == 1)

    run(sink, work)
    first, *rest = waits
    assert first == 17.5
    # Up to half of each is taken off by chance.
    for wait, longest in zip(rest, (0.002, 0.004, 0.008, 0.01, 0.01), strict=True):
        assert longest / 2 <= wait <= longest


def leave_behind(database: Database, run: Run) -> None:
    """Ten events after a sink's place, of which the log has the last two."""

    run(Memory(), nothing)
    add(database, *map(str, range(10)))
    with database.write() as connection:
        log.trim(connection, keep=2, most=1000)


def test_a_sink_that_was_behind_by_more_than_is_kept_says_what_it_lost(
    database: Database, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    leave_behind(database, run)
    sink = Memory()

    async def work(_: Delivery) -> None:
        await until(lambda: len(sink.got) == 2)

    delivery = run(sink, work)
    assert sink.names == ["8", "9"]
    assert delivery.counts["lost"] == 8
    assert "FLOWGAUGE_EVENTS_KEPT" in caplog.text


def test_what_one_station_has_waiting_at_the_end_is_not_passed_over_for_what_others_got(
    database: Database, run: Run
) -> None:
    run(Memory(), nothing)
    add(database, "stuck", station="s1")
    add(database, "through", station="s2")
    first = Memory(fails=lambda name: Undelivered("not now") if name == "stuck" else None)
    second = Memory()

    async def work(_: Delivery) -> None:
        await until(lambda: first.names == ["through"])

    async def again(_: Delivery) -> None:
        await until(lambda: len(second.got) == 2)

    run(first, work)
    assert run.position == 0
    run(second, again)
    assert sorted(second.names) == ["stuck", "through"]
