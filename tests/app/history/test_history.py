import asyncio
import gc
import json
import math
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Row, delete, func, insert, select, text

from app.database import clock
from app.database.engine import Database, DatabaseError, DatabaseUnavailable
from app.database.tables import inspections
from app.history.entry import Entry
from app.history.history import History, HistoryError
from app.history.recent_answers import RecentAnswers
from app.history.record import new_mark
from app.problems import Problem
from app.settings import Settings
from tests.postgres import Postgres

MakeEntry = Callable[..., Entry]


def use(settings: Settings, work: Callable[[History], Awaitable[None]]) -> None:
    """Open a history, do something with it, close it."""

    async def do() -> None:
        history = History(settings)
        await history.open()
        try:
            await work(history)
        finally:
            await history.close()

    asyncio.run(do())


def rows(url: str) -> Sequence[Row[Any]]:
    database = Database(url)
    with database.read() as connection:
        found = connection.execute(select(inspections).order_by(inspections.c.id)).all()
    database.close()
    return found


def files(settings: Settings) -> list[str]:
    """What lies in the history's folder, but for the database."""
    paths = (path.relative_to(settings.history) for path in settings.history.rglob("*") if path.is_file())
    return sorted(
        str(path) for path in paths if not path.name.startswith(("database", "history", "identity", "lock"))
    )


def expected_files(entries: Sequence[Entry]) -> list[str]:
    names = set()
    for entry in entries:
        sha256, identifier = entry.row["image_sha256"], entry.row["id"]
        names |= {f"pictures/{sha256[:2]}/{sha256}", f"maps/{identifier[-2:]}/{identifier}.npy"}
    return sorted(names)


def test_an_inspection_is_kept_with_its_picture_and_map(
    history_settings: Settings, make_entry: MakeEntry
) -> None:
    entry = make_entry(part_id="P 1/2", station="s", key_id="k", product_id="p", recipe_id="r")

    async def work(history: History) -> None:
        await history.record(entry)
        await history.settled(entry.row["id"])
        with history.database.read() as connection:
            row = connection.execute(select(inspections)).one()
        assert dict(row._mapping) == {
            **entry.row,
            "features": "[1.0, 2.0]",
            "image_bytes": len(entry.picture),
            "map_bytes": history.pictures.map_path(row.id).stat().st_size,
            "has_pictures": True,
            "review_revision": 0,
            "verdict": None,
            "idempotency_key": None,
            "request_sha256": None,
            "seen_ms": None,
        }
        assert history.pictures.picture(row.image_sha256) == entry.picture
        score_map = history.pictures.score_map(row.id)
        assert score_map is not None
        np.testing.assert_array_equal(score_map, entry.score_map)
        assert history.backlog == 0
        assert history.failure is None

    use(history_settings, work)
    assert files(history_settings) == expected_files([entry])


def test_many_at_once_are_all_kept(
    history_settings: Settings, make_entry: MakeEntry, database_url: str
) -> None:
    entries = [make_entry() for _ in range(300)]  # more than are filed at a time

    async def work(history: History) -> None:
        await asyncio.gather(*map(history.record, entries))
        await asyncio.gather(*(history.settled(entry.row["id"]) for entry in entries))
        assert history.backlog == 0

    use(history_settings, work)
    assert {row.id for row in rows(database_url)} == {entry.row["id"] for entry in entries}
    assert files(history_settings) == expected_files(entries)


def test_equal_pictures_lie_there_once(
    history_settings: Settings, make_entry: MakeEntry, database_url: str
) -> None:
    entries = [make_entry(picture=b"the same") for _ in range(3)]

    async def work(history: History) -> None:
        for entry in entries:
            await history.record(entry)

    use(history_settings, work)
    assert len(rows(database_url)) == 3
    assert files(history_settings) == expected_files(entries)
    assert len(files(history_settings)) == 4


def test_closing_files_what_waits(
    history_settings: Settings, make_entry: MakeEntry, database_url: str
) -> None:
    entries = [make_entry() for _ in range(300)]

    async def work(history: History) -> None:
        await asyncio.gather(*map(history.record, entries))

    use(history_settings, work)
    assert len(rows(database_url)) == 300
    assert files(history_settings) == expected_files(entries)


@pytest.mark.parametrize(
    "columns",
    [
        {"part_id": "with a \0"},
        {"part_id": "with a \ud800"},
        {"score": math.nan},  # SQLite keeps it as NULL
        {"p_value": math.inf},
    ],
)
def test_one_that_is_no_entry_is_refused_alone(
    history_settings: Settings, make_entry: MakeEntry, database_url: str, columns: dict[str, Any]
) -> None:
    good, bad = make_entry(), make_entry(**columns)

    async def work(history: History) -> None:
        outcomes = await asyncio.gather(history.record(bad), history.record(good), return_exceptions=True)
        assert isinstance(outcomes[0], ValueError)
        assert outcomes[1] is None

    use(history_settings, work)
    assert [row.id for row in rows(database_url)] == [good.row["id"]]


def test_a_part_settles_with_its_last_image(
    history_settings: Settings, make_entry: MakeEntry, database_url: str
) -> None:
    async def work(history: History) -> None:
        for _ in range(10):
            await asyncio.gather(*(history.record(make_entry(part_id="P")) for _ in range(5)))
            await history.part_settled("P")
            with history.database.read() as connection:
                count = connection.scalar(select(func.count()).select_from(inspections))
            assert count is not None
            assert count % 5 == 0

    use(history_settings, work)
    assert len(rows(database_url)) == 50


def test_an_unknown_id_settles_at_once(history_settings: Settings) -> None:
    async def work(history: History) -> None:
        await asyncio.wait_for(history.settled(clock.new_id()), 1)

    use(history_settings, work)


def test_an_idempotency_key_belongs_to_a_key(history_settings: Settings, make_entry: MakeEntry) -> None:
    with_key = make_entry(key_id="k", idempotency_key="i", request_sha256="0" * 64)
    without_key = make_entry(idempotency_key="i")

    async def work(history: History) -> None:
        assert await history.find_idempotent("k", "i") is None
        await history.record(with_key)
        await history.record(without_key)
        earlier = await history.find_idempotent("k", "i")
        assert earlier is not None
        assert (earlier.id, earlier.request_sha256) == (with_key.row["id"], "0" * 64)
        assert (earlier.map_low, earlier.map_middle) == (0.0, 2.0)
        assert json.loads(earlier.answer) == {"inspection_id": with_key.row["id"]}
        anonymous = await history.find_idempotent(None, "i")
        assert anonymous is not None
        assert anonymous.id == without_key.row["id"]
        assert await history.find_idempotent("other", "i") is None
        assert await history.find_idempotent("k", "other") is None

    use(history_settings, work)


def test_who_asked_hears_of_rows_that_are_filed(history_settings: Settings, make_entry: MakeEntry) -> None:
    heard: list[str] = []

    def fail(_: Sequence[Mapping[str, Any]]) -> None:
        raise RuntimeError("a fault of its own")

    async def do() -> None:
        history = History(history_settings)
        history.on_filed(fail)
        history.on_filed(lambda filed: heard.extend(row["id"] for row in filed))
        await history.open()
        entries = [make_entry() for _ in range(5)]
        for entry in entries:
            await history.record(entry)
        await history.close()
        assert heard == [entry.row["id"] for entry in entries]

    asyncio.run(do())


def test_who_waits_for_an_inspection_goes_on_when_all_have_heard_of_it(
    history_settings: Settings, make_entry: MakeEntry
) -> None:
    heard: list[str] = []
    listening, heed = threading.Event(), threading.Event()

    def listen(filed: Sequence[Mapping[str, Any]]) -> None:
        listening.set()
        assert heed.wait(60)
        heard.extend(row["id"] for row in filed)

    async def do() -> None:
        history = History(history_settings)
        history.on_filed(listen)
        await history.open()
        entry = make_entry()
        await history.record(entry)
        waiting = asyncio.ensure_future(history.settled(entry.row["id"]))
        assert await asyncio.to_thread(listening.wait, 60)
        await asyncio.sleep(0.05)
        assert not waiting.done()
        heed.set()
        await waiting
        assert heard == [entry.row["id"]]
        await history.close()

    asyncio.run(do())


def test_tasks_run_in_the_writer_and_give_their_result_or_error(history_settings: Settings) -> None:
    def fail() -> None:
        raise KeyError("a fault of its own")

    async def work(history: History) -> None:
        names = await asyncio.gather(
            *(asyncio.wrap_future(history.in_writer(lambda: sys._getframe().f_code.co_name)) for _ in "abc")
        )
        assert names == ["<lambda>"] * 3
        with pytest.raises(KeyError):
            await asyncio.wrap_future(history.in_writer(fail))
        assert await asyncio.wrap_future(history.in_writer(lambda: 3)) == 3

    use(history_settings, work)


def test_nothing_runs_in_the_writer_of_a_closed_history(history_settings: Settings) -> None:
    async def do() -> None:
        history = History(history_settings)
        await history.open()
        await history.close()
        with pytest.raises(RuntimeError):
            history.in_writer(lambda: 1)

    asyncio.run(do())


def test_two_servers_on_one_folder_are_refused(history_settings: Settings, make_entry: MakeEntry) -> None:
    async def work(history: History) -> None:
        other = History(history_settings)
        with pytest.raises(HistoryError, match=r"another server .* folder and a database of its own"):
            await other.open()
        await history.record(make_entry())  # the first goes on

    use(history_settings, work)
    use(history_settings, work)  # and lets go when it is closed


def test_a_history_of_a_later_version_is_refused_and_let_go(history_settings: Settings) -> None:
    async def nothing(_: History) -> None:
        pass

    use(history_settings, nothing)
    database = Database(history_settings.database_url)
    with database.write() as connection:
        current = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseError, match="later version"):
        use(history_settings, nothing)
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :version"), {"version": current})
    database.close()
    use(history_settings, nothing)


def test_a_database_that_is_down_at_start_is_an_error_that_says_so(
    postgres: Postgres, tmp_path: Path
) -> None:
    with postgres.database() as url:
        settings = Settings(history=tmp_path, database=url)

        async def nothing(_: History) -> None:
            pass

        postgres.stop()
        try:
            with pytest.raises(HistoryError, match=r"does not answer.*FLOWGAUGE_DATABASE"):
                use(settings, nothing)
        finally:
            postgres.start()
        use(settings, nothing)


def test_a_database_that_fails_while_filing_is_tried_again(
    postgres: Postgres, tmp_path: Path, make_entry: MakeEntry
) -> None:
    with postgres.database() as url:
        settings = Settings(history=tmp_path, database=url)
        entries = [make_entry() for _ in range(20)]

        async def work(history: History) -> None:
            await history.record(entries[0])
            await history.settled(entries[0].row["id"])
            postgres.stop()
            try:
                for entry in entries[1:]:
                    await history.record(entry)
                while history.failure is None:
                    await asyncio.sleep(0.01)
                assert history.backlog > 0
                # Whatever else has to run in the writer still does.
                assert await asyncio.wrap_future(history.in_writer(lambda: 7)) == 7
            finally:
                postgres.start()
            await history.settled(entries[-1].row["id"])
            assert history.backlog == 0
            assert history.failure is None

        use(settings, work)
        assert len(rows(url)) == 20
        assert files(settings) == expected_files(entries)


def test_while_the_database_is_gone_keys_wait_for_one_timeout_and_nothing_else_waits(
    history_settings: Settings, make_entry: MakeEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each use of it would take half a minute. It is asked for again when something could be filed."""
    asked: list[str] = []
    timeout = threading.Event()

    @contextmanager
    def gone() -> Iterator[None]:
        asked.append("")
        timeout.wait()
        raise DatabaseUnavailable("gone")
        yield

    async def work(history: History) -> None:
        earlier = make_entry(idempotency_key="i", request_sha256="0" * 64)
        with monkeypatch.context() as patch:
            patch.setattr(history.database, "read", gone)
            finding = [asyncio.create_task(history.find_idempotent(None, f"k{i}")) for i in range(50)]
            while not asked:
                await asyncio.sleep(0.01)
            try:
                assert await asyncio.wait_for(asyncio.to_thread(lambda: 7), 10) == 7
            finally:
                timeout.set()
            assert await asyncio.gather(*finding) == [None] * 50
            assert len(asked) <= 4
            assert await history.find_idempotent(None, "k") is None
            assert len(asked) <= 4
        await history.record(earlier)
        await history.settled(earlier.row["id"])
        monkeypatch.setattr(history, "_recent", RecentAnswers())
        found = await history.find_idempotent(None, "i")
        assert found is not None
        assert found.id == earlier.row["id"]

    use(history_settings, work)


def test_what_waits_for_the_database_waits_for_the_next_start_too(
    postgres: Postgres, tmp_path: Path, make_entry: MakeEntry
) -> None:
    with postgres.database() as url:
        settings = Settings(history=tmp_path, database=url)
        entries = [make_entry() for _ in range(20)]

        async def record_all(history: History) -> None:
            postgres.stop()
            for entry in entries:
                await history.record(entry)
            while history.failure is None:
                await asyncio.sleep(0.01)

        async def nothing(_: History) -> None:
            pass

        try:
            use(settings, record_all)
        finally:
            postgres.start()
        assert rows(url) == []
        use(settings, nothing)
        assert len(rows(url)) == 20
        assert files(settings) == expected_files(entries)


def test_a_disk_that_fails_while_filing_is_tried_again(
    history_settings: Settings, make_entry: MakeEntry, database_url: str
) -> None:
    """A file stands where the folder of a picture should be."""
    entry = make_entry()

    async def work(history: History) -> None:
        obstacle = history.pictures.picture_path(entry.row["image_sha256"]).parent
        obstacle.write_text("in the way")
        await history.record(entry)
        while history.failure is None:
            await asyncio.sleep(0.01)
        assert history.backlog > 0
        obstacle.unlink()
        await history.settled(entry.row["id"])
        assert history.backlog == 0
        assert history.failure is None

    use(history_settings, work)
    assert len(rows(database_url)) == 1
    assert files(history_settings) == expected_files([entry])


def test_a_full_journal_refuses_and_recovers(
    postgres: Postgres, tmp_path: Path, make_entry: MakeEntry
) -> None:
    with postgres.database() as url:
        settings = Settings(history=tmp_path, database=url, journal_bytes=100_000)
        kept: list[Entry] = []

        async def fill(history: History) -> None:
            while True:
                entry = make_entry(picture=os.urandom(10_000))
                await history.record(entry)
                kept.append(entry)

        async def work(history: History) -> None:
            history.expect_room(1000)
            postgres.stop()
            try:
                with pytest.raises(Problem, match=r"not kept.*store=false") as refused:
                    await fill(history)
                assert refused.value.name == "history-unavailable"
                with pytest.raises(Problem, match=r"Nothing was inspected.*store=false") as early:
                    history.expect_room(20_000)
                assert early.value.name == "history-unavailable"
                assert str(tmp_path) not in f"{refused.value.detail} {early.value.detail}"
            finally:
                postgres.start()
            await history.settled(kept[-1].row["id"])
            kept.append(make_entry())
            await history.record(kept[-1])

        use(settings, work)
        assert 5 < len(kept) <= 10
        assert len(rows(url)) == len(kept)
        assert files(settings) == expected_files(kept)


def test_an_inspection_whose_caller_left_before_it_was_taken_up_is_not_kept(
    history_settings: Settings, make_entry: MakeEntry, database_url: str
) -> None:
    entries = [make_entry() for _ in range(3)]

    async def work(history: History) -> None:
        with history._journal._writing:  # as on a disk that does not answer
            tasks = [asyncio.create_task(history.record(entry)) for entry in entries]
            while len(history._appender._arrived) != 2:  # the first one has begun
                await asyncio.sleep(0.001)
            tasks[1].cancel()
            await asyncio.wait([tasks[1]])
            assert next(iter(history._appender._arrived.values()))[0] is entries[2]
        await asyncio.gather(*tasks, return_exceptions=True)
        assert [task.cancelled() for task in tasks] == [False, True, False]

    use(history_settings, work)
    assert [row.id for row in rows(database_url)] == [entries[0].row["id"], entries[2].row["id"]]


def test_a_disk_that_does_not_answer_holds_nothing_for_callers_that_left(
    history_settings: Settings, make_entry: MakeEntry, database_url: str
) -> None:
    first = make_entry()

    async def work(history: History) -> None:
        with history._journal._writing:
            begun = asyncio.create_task(history.record(first))
            held = []
            for _ in range(300):
                entry = make_entry(picture=bytes(1000))
                held.append(weakref.ref(entry))
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(history.record(entry), 0.001)
            del entry
            gc.collect()
            assert [kept() for kept in held if kept() is not None] == []
        await begun

    use(history_settings, work)
    assert [row.id for row in rows(database_url)] == [first.row["id"]]


KILLED = """
import asyncio, sys
from app.history.history import History
from app.settings import Settings
from tests.app.history.killed import entries

async def main():
    history = History(Settings(history=sys.argv[1], database=sys.argv[2]))
    await history.open()

    async def line(number):
        for entry in entries(number):
            await history.record(entry)
            print(entry.row["id"], entry.row["image_sha256"], flush=True)

    await asyncio.gather(*(line(number) for number in range(4)))

asyncio.run(main())
"""


@pytest.mark.parametrize(
    "seconds",
    [0.03, *(pytest.param(seconds, marks=pytest.mark.slow) for seconds in (0.0, 0.01, 0.1, 0.3))],
)
def test_a_process_that_is_killed_loses_nothing_that_it_answered(
    history_settings: Settings, database_url: str, seconds: float
) -> None:
    command = [sys.executable, "-c", KILLED, str(history_settings.history), database_url]
    answered = []
    for _ in range(2):  # the second one files what the first has left, and is killed in its turn
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        answered.append(process.stdout.readline().split())
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        answered += [line.split() for line in process.stdout.read().splitlines()]
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()

    async def nothing(_: History) -> None:
        pass

    use(history_settings, nothing)
    kept = rows(database_url)
    # The last line of a process may be cut off.
    answered = [words for words in answered if len(words) == 2 and len(words[1]) == 64]
    assert answered
    assert {row.id for row in kept} >= {identifier for identifier, _ in answered}
    assert len({row.id for row in kept}) == len(kept)
    names = {f"pictures/{row.image_sha256[:2]}/{row.image_sha256}" for row in kept}
    names |= {f"maps/{row.id[-2:]}/{row.id}.npy" for row in kept}
    assert files(history_settings) == sorted(names)


def test_what_was_filed_before_a_crash_and_deleted_since_does_not_come_back(
    history_settings: Settings, make_entry: MakeEntry, database_url: str
) -> None:
    """The process was killed after the rows were committed and before the journal could forget them."""
    entry, other = make_entry(), make_entry()

    async def work(history: History) -> None:
        await history.record(entry)
        await history.settled(entry.row["id"])
        history.pictures.picture_path(entry.row["image_sha256"]).unlink()
        history.pictures.map_path(entry.row["id"]).unlink()

    async def nothing(_: History) -> None:
        pass

    use(history_settings, work)
    mark = new_mark()
    record = entry.record().encode(mark) + other.record().encode(mark)
    (history_settings.history / "journal" / "000000000007.journal").write_bytes(record)
    use(history_settings, nothing)
    assert [row.id for row in rows(database_url)] == [entry.row["id"], other.row["id"]]
    assert files(history_settings) == expected_files([other])


@pytest.mark.parametrize("place", [0, 4, 8])
def test_a_record_that_the_database_refuses_is_set_aside_alone(
    history_settings: Settings,
    make_entry: MakeEntry,
    database_url: str,
    place: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    entries = [make_entry() for _ in range(9)]
    records = [entry.record() for entry in entries]
    del entries[place]
    row = json.dumps(json.loads(records[place].row) | {"request_id": None}).encode()
    records[place] = records[place]._replace(row=row)
    folder = history_settings.history / "journal"
    folder.mkdir(parents=True)
    mark = new_mark()
    data = [record.encode(mark) for record in records]
    (folder / "000000000001.journal").write_bytes(b"".join(data))

    async def work(history: History) -> None:
        later = make_entry()
        entries.append(later)
        await history.record(later)
        await history.settled(later.row["id"])
        assert (history.backlog, history.failure) == (0, None)

    use(history_settings, work)
    assert {row.id for row in rows(database_url)} == {entry.row["id"] for entry in entries}
    [kept] = folder.iterdir()
    assert kept.name == f"000000000001-{sum(map(len, data[:place])):012}.damaged"
    assert kept.read_bytes() == data[place]
    assert ["refuses an inspection" in line.message for line in caplog.records].count(True) == 1


@pytest.mark.parametrize("old", [0, 2])
def test_a_record_of_a_version_that_did_not_keep_the_precision_is_filed(
    history_settings: Settings, make_entry: MakeEntry, database_url: str, old: int
) -> None:
    records = [make_entry().record() for _ in range(3)]
    row = json.loads(records[old].row)
    del row["precision"]
    records[old] = records[old]._replace(row=json.dumps(row).encode())
    folder = history_settings.history / "journal"
    folder.mkdir(parents=True)
    mark = new_mark()
    data = b"".join(record.encode(mark) for record in records)
    (folder / "000000000001.journal").write_bytes(data)

    async def nothing(_: History) -> None:
        pass

    use(history_settings, nothing)
    kept: list[str | None] = ["float32"] * 3
    kept[old] = None
    assert [row.precision for row in rows(database_url)] == kept


def test_after_a_restart_who_asks_waits_until_what_was_left_is_filed(
    history_settings: Settings, make_entry: MakeEntry
) -> None:
    entries = [make_entry(part_id="P", idempotency_key=f"i{n}") for n in range(200)]
    folder = history_settings.history / "journal"
    folder.mkdir(parents=True)
    mark = new_mark()
    data = b"".join(entry.record().encode(mark) for entry in entries)
    (folder / "000000000001.journal").write_bytes(data)

    async def work(history: History) -> None:
        assert await history.find_idempotent(None, "i199") is not None
        with history.database.read() as connection:
            assert connection.scalar(select(func.count()).select_from(inspections)) == 200

    use(history_settings, work)


def test_settling_that_takes_too_long_is_a_problem(
    postgres: Postgres, tmp_path: Path, make_entry: MakeEntry
) -> None:
    entry = make_entry(part_id="P")
    with postgres.database() as url:

        async def work(history: History) -> None:
            postgres.stop()
            await history.record(entry)
            with pytest.raises(Problem) as caught:
                await history._settling.wait(("part", "P"), 0.05)
            assert caught.value.name == "history-unavailable"

        try:
            use(Settings(history=tmp_path, database=url), work)
        finally:
            postgres.start()


def test_what_was_half_written_is_swept_at_start(history_settings: Settings) -> None:
    async def nothing(_: History) -> None:
        pass

    use(history_settings, nothing)
    (history_settings.history / "incoming" / "half").write_bytes(b"half")
    use(history_settings, nothing)
    assert files(history_settings) == []


def test_rows_deleted_through_the_writer_are_gone(
    history_settings: Settings, make_entry: MakeEntry, database_url: str
) -> None:
    async def work(history: History) -> None:
        entry = make_entry()
        await history.record(entry)
        await history.settled(entry.row["id"])

        def remove() -> int:
            with history.database.write() as connection:
                return connection.execute(delete(inspections)).rowcount

        assert await asyncio.wrap_future(history.in_writer(remove)) == 1

    use(history_settings, work)
    assert rows(database_url) == []


def test_a_row_that_is_there_already_is_not_filed_twice(
    history_settings: Settings, make_entry: MakeEntry, database_url: str
) -> None:
    entry = make_entry()

    async def work(history: History) -> None:
        with history.database.write() as connection:
            connection.execute(insert(inspections), [json.loads(entry.record().row)])
        await history.record(entry)
        await history.settled(entry.row["id"])

    use(history_settings, work)
    assert len(rows(database_url)) == 1


def test_a_database_that_neither_answers_nor_fails_keeps_nobody_from_the_end(
    history_settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("app.history.history._CLOSE_SECONDS", 0.05)
    monkeypatch.setattr("app.history.recorder._ANSWER_SECONDS", 0.05)
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        release.wait(60)

    async def nothing(_: History) -> None:
        pass

    async def scenario() -> History:
        history = History(history_settings)
        await history.open()
        history.in_writer(hold)
        assert await asyncio.to_thread(held.wait, 30)
        history.in_writer(lambda: late.append(1))
        await history.close()
        return history

    late: list[int] = []
    history = asyncio.run(scenario())
    thread = history._recorder._thread
    assert thread.is_alive()
    assert "the database does not answer" in caplog.text
    with pytest.raises(HistoryError, match="uses"):  # it may still write
        use(history_settings, nothing)
    release.set()
    thread.join(30)
    assert (thread.is_alive(), late) == (False, [])
    history._let_go()
