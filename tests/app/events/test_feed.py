import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest
from sqlalchemy import insert

from app.database.engine import Database
from app.database.notifications import Notifications
from app.database.tables import identity
from app.errors.problems import Problem
from app.events import feed as feeds
from app.events import log
from app.events.feed import Feed, ReaderTooSlow
from app.events.log import EventSelector, NewEvent, NumberedEvent
from tests.support.waiting import until

ALL = EventSelector()

pytestmark = pytest.mark.anyio


def add(database: Database, *names: str, category: str = "bottle") -> None:
    new = [NewEvent("inspection", category, None, "PASS", json.dumps(name)) for name in names]
    with database.write() as connection:
        log.append(connection, new)


def name(events: list[NumberedEvent]) -> list[str]:
    return [json.loads(event.data) for event in events]


@asynccontextmanager
async def opened(database: Database, *, kept: int = 8) -> AsyncIterator[Feed]:
    feed = Feed(database, 3, kept)
    await feed.open()
    try:
        async with asyncio.timeout(30):
            yield feed
    finally:
        await feed.close()


async def take(follow: AsyncIterator[tuple[int, list[NumberedEvent]]], count: int) -> list[str]:
    """Return the names of the next events."""
    taken: list[str] = []
    while len(taken) < count:
        _, events = await anext(follow)
        taken += name(events)
    return taken


async def test_unannounced_events_are_polled(database: Database) -> None:
    async with opened(database) as feed, aclosing(feed.follow(feed.position, ALL)) as follow:
        await anext(follow)
        add(database, "a")
        assert await take(follow, 1) == ["a"]


@pytest.mark.parametrize("after", [0, 3, 19, 20])
async def test_replay_continues_live_without_a_gap(
    database: Database, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "_PAGE", 4)
    expected = [str(i) for i in range(1, 41)]
    add(database, *expected[:20])
    async with opened(database, kept=1000) as feed:

        async def write() -> None:
            for i in range(21, 41):
                await asyncio.to_thread(add, database, str(i))
                feed.wake()
                await asyncio.sleep(0.002)

        writing = asyncio.create_task(write())
        async with aclosing(feed.follow(after, ALL)) as follow:
            assert await take(follow, 40 - after) == expected[after:]
        await writing


async def test_more_new_events_than_a_page_are_all_read(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "_PAGE", 4)
    async with opened(database) as feed, aclosing(feed.follow(feed.position, ALL)) as follow:
        await anext(follow)
        add(database, *"abcdef")
        await until(lambda: feed.position == 6)
        assert await take(follow, 6) == list("abcdef")


async def test_heartbeat_comes_without_selected_events(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "HEARTBEAT_SECONDS", 1.0)
    async with opened(database, kept=1000) as feed:

        async def others() -> None:
            while True:
                add(database, "a")
                feed.wake()
                await asyncio.sleep(0.02)

        busy = asyncio.create_task(others())
        async with aclosing(
            feed.follow(feed.position, EventSelector(category=frozenset({"grid"})))
        ) as follow:
            assert await anext(follow) == (0, [])
            number, events = await anext(follow)
            assert number > 0
            assert events == []
            assert not busy.done()
            busy.cancel()


async def test_slow_reader_is_disconnected_and_can_resume(database: Database) -> None:
    async with opened(database) as feed:
        async with aclosing(feed.follow(feed.position, ALL)) as follow:
            await anext(follow)
            add(database, *map(str, range(9)))  # one more than are kept
            await until(lambda: feed.position == 9)
            with pytest.raises(ReaderTooSlow):
                await anext(follow)
        async with aclosing(feed.follow(0, ALL)) as follow:
            assert await take(follow, 9) == list(map(str, range(9)))


async def test_replay_overtaken_by_deletion_fails(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "_PAGE", 4)
    add(database, *map(str, range(20)))
    async with opened(database) as feed:
        async with aclosing(feed.follow(0, ALL)) as follow:
            assert await take(follow, 4) == list("0123")
            with database.write() as connection:
                log.trim(connection, keep=4, limit=1000)
            with pytest.raises(ReaderTooSlow):
                await anext(follow)
        assert (await feed.kept())[0] == 16


async def test_end_releases_all_readers(database: Database) -> None:
    async with opened(database) as feed:

        async def listen() -> int:
            return len([None async for _ in feed.follow(feed.position, ALL)])

        listeners = [asyncio.create_task(listen()) for _ in range(5)]
        await asyncio.sleep(0.05)
        feed.end()
        assert await asyncio.gather(*listeners) == [1] * 5
        with pytest.raises(Problem) as caught, feed.reader():
            pass
        assert caught.value.name == "draining"


async def test_readers_are_limited(database: Database) -> None:
    async with opened(database) as feed:
        with feed.reader(), feed.reader(), feed.reader():
            with pytest.raises(Problem) as caught, feed.reader():
                pass
            assert caught.value.name == "queue-full"
            assert "the limit" in caught.value.detail
        assert (feed.readers, feed.dropped["turned_away"]) == (0, 1)


async def test_unavailable_database_loses_no_events(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(feeds, "POLL_SECONDS", 0.01)
    async with opened(database) as feed, aclosing(feed.follow(feed.position, ALL)) as follow:
        await anext(follow)
        real = log.read
        monkeypatch.setattr(log, "read", None)
        feed.wake()
        await until(lambda: "cannot read new events" in caplog.text)
        monkeypatch.setattr(log, "read", real)
        add(database, "a")
        assert await take(follow, 1) == ["a"]


async def test_feeds_of_two_servers_have_one_order(
    postgres_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are woken only by notifications."""
    monkeypatch.setattr(feeds, "POLL_SECONDS", 3600)
    monkeypatch.setattr("app.database.notifications.POLL_SECONDS", 3600)
    with postgres_database.write() as connection:
        connection.execute(insert(identity).values(id="6b1e6f5e-6f0e-4a53-9a6a-3f9c1d2b7a10"))

    async def read(feed: Feed) -> list[str]:
        async with aclosing(feed.follow(0, ALL)) as follow:
            return await take(follow, 80)

    def write(server: str) -> None:
        for number in range(40):
            add(postgres_database, f"{server}{number}")

    notifications = Notifications(postgres_database)
    async with opened(postgres_database, kept=100) as a, opened(postgres_database, kept=100) as b:
        for feed in (a, b):
            notifications.on("events", feed.wake)
        notifications.start()
        reading = [asyncio.create_task(read(feed)) for feed in (a, b)]
        await asyncio.gather(*(asyncio.to_thread(write, server) for server in "ab"))
        first, second = await asyncio.gather(*reading)
        await asyncio.to_thread(notifications.close)
    assert first == second
    for server in "ab":
        assert [name for name in first if name[0] == server] == [f"{server}{i}" for i in range(40)]
