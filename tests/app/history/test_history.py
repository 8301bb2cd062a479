import asyncio
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Row, func, insert, select

from app.database.engine import Database, DatabaseUnavailable
from app.database.tables import inspections
from app.errors.problems import Problem
from app.history import writer
from app.history.history import History, HistoryError
from app.history.journal_record import HistoryEntry
from app.settings import Settings
from tests.app.history.conftest import MakeEntry
from tests.support.waiting import until

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[History]:
    history = History(settings)
    await history.open()
    try:
        yield history
    finally:
        await history.close()


async def reopen(settings: Settings) -> None:
    """Open and close a history, so that it stores waiting records."""
    async with opened(settings):
        pass


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(history=tmp_path / "history")


def rows(settings: Settings) -> Sequence[Row[Any]]:
    database = Database(settings.database_url)
    with database.read() as connection:
        found = connection.execute(select(inspections).order_by(inspections.c.id)).all()
    database.close()
    return found


def ids(settings: Settings) -> list[str]:
    return [row.id for row in rows(settings)]


def files(settings: Settings) -> set[str]:
    folders = ("pictures", "maps")
    return {path.name for folder in folders for path in (settings.history / folder).glob("*/*")}


def expected_files(entries: Sequence[HistoryEntry]) -> set[str]:
    return {name for entry in entries for name in (entry.row["image_sha256"], f"{entry.row['id']}.npy")}


def leave_journal(settings: Settings, *entries: HistoryEntry) -> Path:
    """Write a journal as a killed process leaves it."""
    folder = settings.history / "journal"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "000000000007.journal").write_bytes(b"".join(entry.record().encode() for entry in entries))
    return folder


async def failing(history: History) -> None:
    """Wait until the history reports a failure."""
    await until(lambda: history.failure is not None)


async def test_inspection_is_stored_with_image_and_map(settings: Settings, make_entry: MakeEntry) -> None:
    entry = make_entry(part_id="P 1/2", station="s", key_id="k", product_id="p", recipe_id="r")

    async with opened(settings) as history:
        await history.record(entry)
        await history.wait_until_filed()
        [row] = rows(settings)
        map_bytes = history.files.map_path(row.id).stat().st_size
        assert dict(row._mapping) == {**entry.row, "features": "[1.0, 2.0]", "map_bytes": map_bytes}
        assert history.files.read_image(row.image_sha256) == entry.image
        score_map = history.files.read_score_map(row.id)
        assert score_map is not None
        np.testing.assert_array_equal(score_map, entry.score_map)
        assert (history.backlog, history.failure) == (0, None)


async def test_closing_stores_all_recorded_inspections(settings: Settings, make_entry: MakeEntry) -> None:
    entries = [make_entry() for _ in range(300)]  # more than are filed at a time
    entries += [make_entry(image=b"the same") for _ in range(3)]

    async with opened(settings) as history:
        await asyncio.gather(*map(history.record, entries))
    assert sorted(ids(settings)) == sorted(entry.row["id"] for entry in entries)
    assert files(settings) == expected_files(entries)
    assert len(files(settings)) == 300 + 1 + 303


async def test_idempotency_keys_of_api_keys_are_separate(settings: Settings, make_entry: MakeEntry) -> None:
    with_key = make_entry(key_id="k", idempotency_key="i", request_sha256="0" * 64)
    without_key = make_entry(idempotency_key="i")

    async def check(history: History) -> None:
        earlier = await history.find_or_claim("k", "i", "token")
        assert earlier is not None
        assert (earlier.id, earlier.request_sha256) == (with_key.row["id"], "0" * 64)
        assert (earlier.answer, earlier.map_middle) == (with_key.row["answer"], 1.0)
        other = await history.find_or_claim(None, "i", "token")
        assert other is not None
        assert other.id == without_key.row["id"]
        assert await history.find_or_claim("other", "i", "token") is None
        assert await history.find_or_claim("k", "other", "token") is None

    async with opened(settings) as history:
        assert await history.find_or_claim("k", "i", "token") is None
        await history.record(with_key)
        await history.record(without_key)
        await check(history)
    async with opened(settings) as history:
        await check(history)


async def test_callbacks_get_rows_before_waiters_continue(settings: Settings, make_entry: MakeEntry) -> None:
    heard: list[str] = []
    listening, heed = threading.Event(), threading.Event()
    entry = make_entry()

    def fail(_: Sequence[Mapping[str, Any]]) -> None:
        raise RuntimeError("a fault of its own")

    def listen(filed: Sequence[Mapping[str, Any]]) -> None:
        listening.set()
        assert heed.wait(60)
        heard.extend(row["id"] for row in filed)

    history = History(settings)
    history.on_filed(fail)
    history.on_filed(listen)
    await history.open()
    await history.record(entry)
    waiting = asyncio.ensure_future(history.wait_until_filed())
    assert await asyncio.to_thread(listening.wait, 60)
    assert not waiting.done()
    heed.set()
    await waiting
    assert heard == [entry.row["id"]]
    await history.close()


async def test_second_server_on_a_folder_is_refused(settings: Settings, make_entry: MakeEntry) -> None:
    async with opened(settings) as history:
        with pytest.raises(HistoryError, match=r"another server .* folder and a database of its own"):
            await reopen(settings)
        await history.record(make_entry())  # the first goes on
    await reopen(settings)  # and lets go when it is closed


@pytest.mark.one_server("keeps its database in a file")
@pytest.mark.parametrize("replaced", [False, True])
async def test_nothing_is_lost_while_the_database_file_is_gone(
    settings: Settings, make_entry: MakeEntry, replaced: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLite keeps writing into the deleted file."""
    before, after = make_entry(), [make_entry(idempotency_key=f"i{n}") for n in range(20)]

    async with opened(settings) as history:
        await history.record(before)
        await history.wait_until_filed()
        if replaced:
            dump = settings.sqlite_file.with_name("dump")
            shutil.copy(settings.sqlite_file, dump)
            dump.replace(settings.sqlite_file)
        else:
            settings.sqlite_file.rename(settings.sqlite_file.with_name("away"))
        for entry in after:
            await history.record(entry)
        await failing(history)
        assert "removed or replaced" in str(history.failure)
        assert "removed or replaced" in caplog.text
        with pytest.raises(DatabaseUnavailable, match="removed or replaced"), history.database.read():
            pass
        found = await history.find_or_claim(None, "i3", "token")
        assert found is not None
        assert found.id == after[3].row["id"]
    assert settings.sqlite_file.exists() == replaced
    await reopen(settings)
    assert {entry.row["id"] for entry in after} <= set(ids(settings))
    assert len(ids(settings)) == len(after) + replaced


async def test_failing_disk_is_retried(
    settings: Settings,
    make_entry: MakeEntry,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A file blocks the folder of an image."""
    monkeypatch.setattr(writer, "_MAX_DELAY", 0.01)
    entry = make_entry()

    async with opened(settings) as history:
        obstacle = history.files.image_path(entry.row["image_sha256"]).parent
        obstacle.write_text("in the way")
        await history.record(entry)
        await until(lambda: caplog.text.count("cannot be stored") > 2)
        assert history.backlog > 0
        obstacle.unlink()
        await until(lambda: history.failure is None)
        assert history.backlog == 0
    assert ids(settings) == [entry.row["id"]]
    assert files(settings) == expected_files([entry])


@pytest.mark.one_server("keeps its database in a file")
async def test_full_journal_refuses_and_recovers(tmp_path: Path, make_entry: MakeEntry) -> None:
    settings = Settings(history=tmp_path, journal_bytes=100_000)
    away = settings.sqlite_file.with_name("away")
    kept: list[HistoryEntry] = []

    async def fill(history: History) -> None:
        while True:
            entry = make_entry(image=os.urandom(10_000))
            await history.record(entry)
            kept.append(entry)

    async with opened(settings) as history:
        history.require_room(1000)
        settings.sqlite_file.rename(away)
        with pytest.raises(Problem, match=r"not kept.*store=false") as refused:
            await fill(history)
        with pytest.raises(Problem, match=r"Nothing was inspected.*store=false") as early:
            history.require_room(20_000)
        assert (refused.value.name, early.value.name) == ("history-unavailable",) * 2
        assert str(tmp_path) not in f"{refused.value.detail} {early.value.detail}"
        assert not history.accepts(20_000)
        away.rename(settings.sqlite_file)
        await history.wait_until_filed()
        kept.append(make_entry())
        await history.record(kept[-1])
    assert 5 < len(kept) <= 10
    assert len(ids(settings)) == len(kept)


KILLED = """
import asyncio, itertools, os, sys
import numpy as np
from app.history.history import History
from app.history.journal_record import HistoryEntry
from app.settings import Settings
from tests.app.history.rows import row

async def main():
    history = History(Settings(history=sys.argv[1]))
    await history.open()

    async def line():
        for number in itertools.count():
            image = os.urandom(150_000) if number % 5 else b"the same"
            entry = HistoryEntry(row(image=image), image, np.zeros((64, 64), np.float32))
            await history.record(entry)
            print(entry.row["id"], entry.row["image_sha256"], flush=True)

    await asyncio.gather(*(line() for _ in range(4)))

asyncio.run(main())
"""


@pytest.mark.one_server("keeps its database in a file")
@pytest.mark.parametrize(
    "answers", [20, *(pytest.param(answers, marks=pytest.mark.slow) for answers in (1, 2, 100, 400))]
)
async def test_killed_process_loses_no_answered_inspection(settings: Settings, answers: int) -> None:
    command = [sys.executable, "-c", KILLED, str(settings.history)]
    answered: list[list[str]] = []
    for _ in range(2):  # the second one files what the first has left, and is killed in its turn
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        answered += [process.stdout.readline().split() for _ in range(answers)]
        process.send_signal(signal.SIGKILL)
        answered += [line.split() for line in process.stdout.read().splitlines()]
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
    await reopen(settings)
    kept = rows(settings)
    # The last line of a process may be cut off.
    answered = [words for words in answered if len(words) == 2 and len(words[1]) == 64]
    assert {row.id for row in kept} >= {identifier for identifier, _ in answered}
    assert len({row.id for row in kept}) == len(kept)
    assert files(settings) == {name for row in kept for name in (row.image_sha256, f"{row.id}.npy")}


async def test_deleted_files_do_not_return_after_a_crash(settings: Settings, make_entry: MakeEntry) -> None:
    """The process was killed between the commit and the removal from the journal."""
    entry, other = make_entry(), make_entry()
    await reopen(settings)
    database = Database(settings.database_url)
    with database.write() as connection:
        connection.execute(insert(inspections), [entry.record().row])
    database.close()
    leave_journal(settings, entry, other)
    await reopen(settings)
    assert ids(settings) == [entry.row["id"], other.row["id"]]
    assert files(settings) == expected_files([other])


@pytest.mark.parametrize("place", [0, 8])
async def test_record_refused_by_the_database_is_set_aside(
    settings: Settings, make_entry: MakeEntry, place: int, caplog: pytest.LogCaptureFixture
) -> None:
    entries = [make_entry() for _ in range(9)]
    entries[place] = make_entry(request_id=None)
    folder = leave_journal(settings, *entries)
    refused = entries.pop(place)
    await reopen(settings)
    assert ids(settings) == [entry.row["id"] for entry in entries]
    [kept] = folder.iterdir()
    assert kept.name == f"{refused.row['id']}.damaged"
    assert kept.read_bytes() == refused.record().encode()
    assert ["refuses an inspection" in line.message for line in caplog.records].count(True) == 1


async def test_left_over_records_are_awaited_after_restart(settings: Settings, make_entry: MakeEntry) -> None:
    entries = [make_entry(idempotency_key=f"i{n}") for n in range(200)]
    leave_journal(settings, *entries)

    async with opened(settings) as history:
        assert await history.find_or_claim(None, "i199", "token") is not None
        with history.database.read() as connection:
            assert connection.scalar(select(func.count()).select_from(inspections)) == 200
