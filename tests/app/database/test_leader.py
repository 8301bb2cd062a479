import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from app.database import leader as module
from app.database import locks
from app.database.engine import Database
from app.database.leader import Leader
from tests.support.faulty_proxy import FaultyProxy
from tests.support.waiting import until

pytestmark = pytest.mark.anyio


class Work:
    """Work that notes in a list, shared by servers, when it starts and stops."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name = name
        self.notes = notes
        self.fails = False

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        if self.fails:
            raise ValueError("it does not start")
        self.notes.append(f"{self.name} starts")
        yield
        self.notes.append(f"{self.name} stops")


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.01)
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("leader")]


async def test_other_server_takes_over_at_the_stop(postgres_database: Database) -> None:
    notes: list[str] = []
    a, b = (Leader(postgres_database, Work(name, notes).run) for name in "ab")
    await a.open()
    await b.open()
    assert (a.leads, b.leads) == (True, False)
    await a.close()
    await until(lambda: b.leads)
    await b.close()
    assert notes == ["a starts", "a stops", "b starts", "b stops"]


async def test_lost_connection_stops_the_work(postgres_database: Database) -> None:
    notes: list[str] = []
    a, b = (Leader(postgres_database, Work(name, notes).run) for name in "ab")
    await a.open()
    with postgres_database.write() as connection:
        ended = text(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = :number"
        )
        assert len(connection.execute(ended, {"number": locks.LEADER}).all()) == 1
    await until(lambda: "a stops" in notes)
    await until(lambda: a.leads)  # nobody else has come
    await a.close()
    await b.open()
    assert b.leads
    await b.close()
    assert notes == ["a starts", "a stops", "a starts", "a stops", "b starts", "b stops"]


async def test_silent_database_stops_the_work(
    postgres_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_SILENCE_SECONDS", 0.5)
    notes: list[str] = []
    url = postgres_database.engine.url
    server = Path(str(url.query["host"])) / ".s.PGSQL.5432"
    with FaultyProxy(server, tmp_path / server.name) as proxy:
        behind = Database(url.update_query_dict({"host": str(tmp_path)}).render_as_string(False))
        a, b = Leader(behind, Work("a", notes).run), Leader(postgres_database, Work("b", notes).run)
        await a.open()
        await b.open()
        with proxy.hanging():
            await until(lambda: "a stops" in notes)
        await until(lambda: a.leads or b.leads)
        await a.close()
        await until(lambda: b.leads)
        await b.close()
        behind.close()


async def test_server_that_cannot_work_leaves_the_lead(
    postgres_database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    notes: list[str] = []
    first, broken, sound = (Work(name, notes) for name in ("first", "broken", "sound"))
    servers = [Leader(postgres_database, work.run) for work in (first, broken, sound)]
    await servers[0].open()
    await servers[1].open()
    broken.fails = True
    await servers[0].close()
    await until(lambda: "cannot lead" in caplog.text)
    await servers[2].open()
    await until(lambda: servers[2].leads)
    for server in servers[1:]:
        await server.close()
    assert notes == ["first starts", "first stops", "sound starts", "sound stops"]


async def test_work_that_fails_at_the_start_is_reported(postgres_database: Database) -> None:
    work = Work("a", [])
    work.fails = True
    leader = Leader(postgres_database, work.run)
    with pytest.raises(ValueError, match="does not start"):
        await leader.open()
    await leader.close()


async def test_sqlite_always_leads_without_thread_or_task(database: Database) -> None:
    notes: list[str] = []
    leader = Leader(database, Work("a", notes).run)
    threads, tasks = threading.active_count(), asyncio.all_tasks()
    await leader.open()
    assert leader.leads
    assert (threading.active_count(), asyncio.all_tasks()) == (threads, tasks)
    await leader.close()
    assert notes == ["a starts", "a stops"]
