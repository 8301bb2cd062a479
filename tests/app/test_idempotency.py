import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from sqlalchemy import select

from app.database.tables import inspections
from app.history.entry import Entry
from app.history.history import History
from app.idempotency import Idempotency
from app.problems import Problem
from app.settings import Settings
from tests.app.history.conftest import MakeEntry, make_entry
from tests.postgres import Postgres

__all__ = ["make_entry"]

REQUEST = "a" * 64


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Settings of a history, over each kind of database."""
    return Settings(history=tmp_path / "history", database=database_url)


@pytest.fixture
def keyed(make_entry: MakeEntry) -> Callable[..., Entry]:
    """Inspections with an idempotency key."""

    def make(key: str = "P-1", key_id: str | None = None) -> Entry:
        return make_entry(idempotency_key=key, key_id=key_id, request_sha256=REQUEST)

    return make


class Line:
    """Sends requests, as the predict route does: whoever gets nothing earlier inspects and keeps."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.idempotency = Idempotency(history)

    async def send(self, entry: Entry, request_sha256: str = REQUEST) -> str:
        """The id of the inspection that answers."""
        row = entry.row
        async with self.idempotency.claim(
            row.get("key_id"), row["idempotency_key"], request_sha256
        ) as earlier:
            if earlier is not None:
                return earlier.id
            await self.history.record(entry)
            identifier: str = row["id"]
            return identifier

    def kept(self) -> Sequence[str]:
        with self.history.database.read() as connection:
            return connection.scalars(select(inspections.c.id).order_by(inspections.c.id)).all()


def use(settings: Settings, work: Callable[[Line], Awaitable[None]]) -> None:
    async def do() -> None:
        history = History(settings)
        await history.open()
        try:
            await work(Line(history))
        finally:
            await history.close()

    asyncio.run(do())


async def filed(history: History, entry: Entry) -> None:
    await history.settled(entry.row["id"])


def test_a_request_that_comes_again_gets_the_first_answer(
    settings: Settings, keyed: Callable[..., Entry]
) -> None:
    first = keyed()

    async def work(line: Line) -> None:
        answers = [await line.send(entry) for entry in (first, keyed(), keyed())]
        assert answers == [first.row["id"]] * 3
        assert line.kept() == [first.row["id"]]

    use(settings, work)


def test_many_at_once_are_inspected_once(settings: Settings, keyed: Callable[..., Entry]) -> None:
    async def work(line: Line) -> None:
        answers = await asyncio.gather(*(line.send(keyed()) for _ in range(20)))
        assert len(set(answers)) == 1
        assert line.kept() == answers[:1]
        assert line.idempotency._running == {}

    use(settings, work)


def test_another_request_under_the_same_key_is_refused(
    settings: Settings, keyed: Callable[..., Entry]
) -> None:
    async def work(line: Line) -> None:
        await line.send(keyed())
        with pytest.raises(Problem) as refused:
            await line.send(keyed(), "b" * 64)
        assert refused.value.name == "idempotency-key-reused"
        assert len(line.kept()) == 1

    use(settings, work)


def test_the_keys_of_two_callers_have_nothing_to_do_with_each_other(
    settings: Settings, keyed: Callable[..., Entry]
) -> None:
    async def work(line: Line) -> None:
        entries = [keyed(key_id=key_id) for key_id in (None, "k1", "k2")]
        answers = await asyncio.gather(*map(line.send, entries))
        assert answers == [entry.row["id"] for entry in entries]

    use(settings, work)


def test_a_request_that_fails_leaves_the_key_to_the_next(
    settings: Settings, keyed: Callable[..., Entry]
) -> None:
    async def work(line: Line) -> None:
        async def fail() -> None:
            async with line.idempotency.claim(None, "P-1", REQUEST):
                raise KeyError("a fault of its own")

        with pytest.raises(KeyError):
            await fail()
        entry = keyed()
        assert await line.send(entry) == entry.row["id"]

    use(settings, work)


def test_a_request_whose_deadline_passes_while_it_is_written_is_not_inspected_again(
    settings: Settings, keyed: Callable[..., Entry]
) -> None:
    """The disk stalls; the line PC has no answer and sends the request once more."""
    first = keyed()

    async def work(line: Line) -> None:
        journal = line.history._journal
        with journal._writing:
            sent = asyncio.create_task(line.send(first))
            while not line.history._settling._open or line.history._appender._arrived:
                await asyncio.sleep(0.001)  # until it is being written
            sent.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sent
            again = asyncio.create_task(line.send(keyed()))
            await asyncio.sleep(0.05)
            assert not again.done()
        assert await again == first.row["id"]
        assert line.kept() == [first.row["id"]]

    use(settings, work)


def test_a_request_whose_deadline_passes_before_it_is_written_is_inspected_again(
    settings: Settings, keyed: Callable[..., Entry]
) -> None:
    other, first, second = keyed("another"), keyed(), keyed()

    async def work(line: Line) -> None:
        with line.history._journal._writing:
            begun = asyncio.create_task(line.send(other))
            while not line.history._settling._open or line.history._appender._arrived:
                await asyncio.sleep(0.001)
            sent = asyncio.create_task(line.send(first))
            while not line.history._appender._arrived:
                await asyncio.sleep(0.001)
            sent.cancel()
            again = asyncio.create_task(line.send(second))
            await asyncio.sleep(0.05)
        assert await begun == other.row["id"]
        assert await again == second.row["id"]
        await filed(line.history, second)
        assert set(line.kept()) == {other.row["id"], second.row["id"]}

    use(settings, work)


def test_a_request_that_the_disk_refuses_is_inspected_again(
    settings: Settings, keyed: Callable[..., Entry]
) -> None:
    second = keyed()

    async def work(line: Line) -> None:
        line.history._journal._max_bytes, most = 0, line.history._journal._max_bytes
        with pytest.raises(Problem) as refused:
            await line.send(keyed())
        assert refused.value.name == "history-unavailable"
        line.history._journal._max_bytes = most
        assert await line.send(second) == second.row["id"]
        await filed(line.history, second)
        assert line.kept() == [second.row["id"]]

    use(settings, work)


async def away(line: Line) -> None:
    while not line.history._recorder.database_is_away:
        await asyncio.sleep(0.001)


def test_while_the_database_is_away_a_line_goes_on(
    postgres: Postgres, tmp_path: Path, keyed: Callable[..., Entry]
) -> None:
    before, during = keyed("before"), keyed("during")

    async def work(line: Line) -> None:
        await line.send(before)
        await filed(line.history, before)
        postgres.stop()
        try:
            # Unknown, at once by several: inspected, once. What was answered before is remembered.
            answers = await asyncio.gather(line.send(during), *(line.send(keyed("during")) for _ in range(5)))
            assert answers == [during.row["id"]] * 6
            assert await line.send(keyed("before")) == before.row["id"]
            await away(line)
            assert await line.send(keyed("during")) == during.row["id"]
            with pytest.raises(Problem) as refused:
                await line.send(keyed("before"), "b" * 64)
            assert refused.value.name == "idempotency-key-reused"
            new = keyed("new")
            assert await line.send(new) == new.row["id"]
        finally:
            postgres.start()
        await filed(line.history, new)
        assert await line.send(keyed("during")) == during.row["id"]
        assert line.kept() == [one.row["id"] for one in (before, during, new)]

    with postgres.database() as url:
        use(Settings(history=tmp_path, database=url), work)


def test_a_key_that_was_forgotten_while_the_database_is_away_is_filed_twice_and_leads_to_the_first(
    postgres: Postgres, tmp_path: Path, keyed: Callable[..., Entry]
) -> None:
    first, second, other = keyed(), keyed(), keyed("other")

    async def work(line: Line) -> None:
        await line.send(first)
        await filed(line.history, first)
        line.history._recent._answers.clear()
        postgres.stop()
        try:
            assert await line.send(second, "b" * 64) == second.row["id"]
            await line.send(other)
        finally:
            postgres.start()
        await filed(line.history, other)
        assert line.kept() == [one.row["id"] for one in (first, second, other)]
        assert not list(line.history.folder.glob("journal/*.damaged"))
        assert await line.send(keyed()) == first.row["id"]
        with pytest.raises(Problem) as refused:
            await line.send(keyed(), "b" * 64)
        assert refused.value.name == "idempotency-key-reused"

    with postgres.database() as url:
        use(Settings(history=tmp_path, database=url), work)
