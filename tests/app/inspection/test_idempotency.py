import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import select, update

from app.database import clock, locks
from app.database.shared_tables import idempotency_claims
from app.database.tables import inspections
from app.errors.problems import Problem
from app.history.history import History
from app.history.inspection_files import InspectionFiles
from app.history.journal import Journal
from app.history.journal_record import HistoryEntry, JournalRecord
from app.inspection import idempotency
from app.inspection.idempotency import IdempotencyKeys
from app.settings import Settings
from tests.app.history.conftest import MakeEntry, make_entry
from tests.support.postgres import Postgres
from tests.support.waiting import until

__all__ = ["make_entry"]

REQUEST = "a" * 64

pytestmark = pytest.mark.anyio


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(history=tmp_path / "history")


@pytest.fixture
def keyed(make_entry: MakeEntry) -> Callable[..., HistoryEntry]:
    def make(key: str = "P-1", key_id: str | None = None) -> HistoryEntry:
        return make_entry(idempotency_key=key, key_id=key_id, request_sha256=REQUEST)

    return make


class Line:
    """Sends requests as the pipeline does: it records a new inspection if there is no earlier answer."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.idempotency = IdempotencyKeys(history)

    async def send(self, entry: HistoryEntry, request_sha256: str = REQUEST) -> str:
        row = entry.row
        claim = self.idempotency.claim(row.get("key_id"), row["idempotency_key"], request_sha256)
        async with claim as earlier:
            if earlier is not None:
                return earlier.id
            await self.history.record(entry)
            identifier: str = row["id"]
            return identifier

    def kept(self) -> Sequence[str]:
        with self.history.database.read() as connection:
            return connection.scalars(select(inspections.c.id).order_by(inspections.c.id)).all()


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Line]:
    history = History(settings)
    await history.open()
    try:
        yield Line(history)
    finally:
        await history.close()


async def test_repeated_requests_get_the_first_answer(
    settings: Settings, keyed: Callable[..., HistoryEntry]
) -> None:
    async with opened(settings) as line:
        answers = await asyncio.gather(*(line.send(keyed()) for _ in range(20)))
        answers.append(await line.send(keyed()))
        assert len(set(answers)) == 1
        await line.history.wait_until_filed()
        assert line.kept() == answers[:1]


async def test_cancelled_request_is_not_inspected_again(
    settings: Settings, keyed: Callable[..., HistoryEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk stalls, and the client repeats the request."""
    first = keyed()
    writing, release, append = threading.Event(), threading.Event(), Journal.append

    def stalled(journal: Journal, record: JournalRecord) -> None:
        writing.set()
        assert release.wait(60)
        append(journal, record)

    monkeypatch.setattr(Journal, "append", stalled)
    async with opened(settings) as line:
        sent = asyncio.create_task(line.send(first))
        assert await asyncio.to_thread(writing.wait, 60)
        sent.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sent
        again = asyncio.create_task(line.send(keyed()))
        await asyncio.sleep(0)
        release.set()
        assert await again == first.row["id"]
        await line.history.wait_until_filed()
        assert line.kept() == [first.row["id"]]


async def test_inspections_continue_without_the_database(
    postgres: Postgres, tmp_path: Path, keyed: Callable[..., HistoryEntry]
) -> None:
    before, during = keyed("before"), keyed("during")
    with postgres.database() as url:
        async with opened(Settings(history=tmp_path, database=url)) as line:
            await line.send(before)
            await line.history.wait_until_filed()
            postgres.stop()
            try:
                # Unknown, at once by several: inspected, once. What was answered before is remembered.
                answers = await asyncio.gather(
                    line.send(during), *(line.send(keyed("during")) for _ in range(5))
                )
                assert answers == [during.row["id"]] * 6
                assert await line.send(keyed("before")) == before.row["id"]
                with pytest.raises(Problem) as refused:
                    await line.send(keyed("before"), "b" * 64)
                assert refused.value.name == "idempotency-key-reused"
            finally:
                postgres.start()
            await line.history.wait_until_filed()
            assert line.kept() == [before.row["id"], during.row["id"]]


async def test_two_servers_inspect_a_key_once(
    postgres: Postgres, tmp_path: Path, keyed: Callable[..., HistoryEntry]
) -> None:
    with postgres.database() as url:
        async with opened(at(tmp_path / "a", url)) as a, opened(at(tmp_path / "b", url)) as b:
            keys = [f"P-{number}" for number in range(20)]
            for key in keys:
                answers = await asyncio.gather(*(line.send(keyed(key)) for line in (a, b, a, b)))
                assert len(set(answers)) == 1
            await a.history.wait_until_filed()
            await b.history.wait_until_filed()
            assert len(a.kept()) == len(keys)
            assert claims(a.history) == []


async def test_failed_request_frees_its_key_for_other_servers(
    postgres: Postgres, tmp_path: Path, keyed: Callable[..., HistoryEntry]
) -> None:
    with postgres.database() as url:
        async with opened(at(tmp_path / "a", url)) as a, opened(at(tmp_path / "b", url)) as b:
            with suppress(ValueError):
                async with a.idempotency.claim(None, "P-1", REQUEST):
                    assert claims(a.history) == ["P-1"]
                    raise ValueError("no image")
            entry = keyed()
            assert await b.send(entry) == entry.row["id"]


async def test_killed_servers_keys_wait_for_its_journal(
    postgres: Postgres, tmp_path: Path, keyed: Callable[..., HistoryEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = keyed("answered")
    with postgres.database() as url:
        settings = at(tmp_path / "a", url)
        async with opened(settings) as killed, opened(at(tmp_path / "b", url)) as b:
            with monkeypatch.context() as patch:
                patch.setattr(idempotency, "_WAIT_SECONDS", 0)
                for key in ("answered", "unanswered"):
                    assert await killed.history.find_or_claim(None, key, "0") is None
                    with pytest.raises(Problem) as refused:
                        await b.send(keyed(key))
                    assert refused.value.name == "history-unavailable"
        (settings.history / "journal" / "000000000007.journal").write_bytes(entry.record().encode())
        async with opened(at(tmp_path / "b", url)) as b, opened(settings):
            assert await b.send(keyed("answered")) == entry.row["id"]
            unanswered = keyed("unanswered")
            assert await b.send(unanswered) == unanswered.row["id"]


async def test_waiting_journal_keeps_its_keys(
    postgres: Postgres, tmp_path: Path, keyed: Callable[..., HistoryEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is away for longer than a claim lasts, and the database is not."""
    refused = threading.Event()

    def refuse(*_: object) -> None:
        refused.set()
        raise OSError("no store")

    with postgres.database() as url:
        async with opened(at(tmp_path / "a", url)) as a, opened(at(tmp_path / "b", url)) as b:
            assert await a.history.find_or_claim(None, "P-1", clock.new_id()) is None
            age_claims(a.history)
            with monkeypatch.context() as patch:
                patch.setattr(InspectionFiles, "store_all", refuse)
                patch.setattr(idempotency, "_WAIT_SECONDS", 0)
                await a.history.record(keyed())
                assert await asyncio.to_thread(refused.wait, 60)
                a.history.run_in_writer(lambda: None).result(60)
                with pytest.raises(Problem, match="Another server"):
                    await b.send(keyed())
            await a.history.wait_until_filed()
            assert await b.send(keyed()) == a.kept()[0]


async def test_long_backlog_keeps_its_keys(
    postgres: Postgres, tmp_path: Path, keyed: Callable[..., HistoryEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal is filed without a failure, for longer than a claim lasts."""
    batches, go_on = threading.Semaphore(0), threading.Semaphore(0)
    store_all = InspectionFiles.store_all

    def store_slowly(files: InspectionFiles, some: Mapping[str, bytes]) -> None:
        batches.release()
        assert go_on.acquire(timeout=60)
        store_all(files, some)

    with postgres.database() as url:
        async with opened(at(tmp_path / "a", url)) as a, opened(at(tmp_path / "b", url)) as b:
            monkeypatch.setattr(InspectionFiles, "store_all", store_slowly)
            monkeypatch.setattr(idempotency, "_WAIT_SECONDS", 0)
            await a.send(keyed("first"))
            assert await asyncio.to_thread(batches.acquire, timeout=60)
            await a.send(keyed())
            age_claims(a.history)
            go_on.release()
            assert await asyncio.to_thread(batches.acquire, timeout=60)
            try:
                with pytest.raises(Problem, match="Another server"):
                    await b.send(keyed())
            finally:
                go_on.release(2)


async def test_locked_files_leave_claims_on(
    postgres: Postgres, tmp_path: Path, keyed: Callable[..., HistoryEntry]
) -> None:
    """Retention of another server holds the files' lock for longer than the writer waits."""
    with postgres.database() as url:
        async with opened(at(tmp_path, f"{url}&options=-c%20lock_timeout%3D100ms")) as line:
            with line.history.database.locked(locks.FILES):
                await line.send(keyed("P-1"))
                await until(lambda: line.history.failure is not None)
                await line.send(keyed("P-2"))
                assert claims(line.history) == ["P-1", "P-2"]


async def test_keys_of_a_server_that_stays_away_expire(
    postgres: Postgres, tmp_path: Path, keyed: Callable[..., HistoryEntry]
) -> None:
    with postgres.database() as url:
        async with opened(at(tmp_path / "a", url)) as a:
            assert await a.history.find_or_claim(None, "P-1", "0") is None
            age_claims(a.history)
        async with opened(at(tmp_path / "b", url)) as b:
            entry = keyed()
            assert await b.send(entry) == entry.row["id"]


def at(folder: Path, url: str) -> Settings:
    return Settings(history=folder, database=url)


def claims(history: History) -> Sequence[str]:
    with history.database.read() as connection:
        key = idempotency_claims.c.idempotency_key
        return connection.scalars(select(key).order_by(key)).all()


def age_claims(history: History) -> None:
    """Make all claims older than they may get."""
    with history.database.write() as connection:
        older = idempotency_claims.c.claimed_ms - 120_001
        connection.execute(update(idempotency_claims).values(claimed_ms=older))
