import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, delete, event, insert, select

from app.access import ANONYMOUS
from app.database import clock
from app.database.engine import Database
from app.database.tables import inspections, retention
from app.feed import log
from app.feed.log import Happening
from app.history import retention as module
from app.history import reviews
from app.history.orphans import sweep
from app.history.pictures import Pictures
from app.history.retention import Retention
from app.history.steady_clock import SteadyClock
from app.problems import Problem
from app.settings import Settings
from tests.app.history.rows import add, row

DAY = 24 * 3_600_000
PICTURE = b"p" * 900  # with its map of 100 bytes: 1000


class Kept:
    """A history's rows and files without its journal."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.pictures = Pictures(folder)
        self.pictures.open()
        # The line has been at work until now: that is what tells that the clock is right.
        self.now = add(database, row(clock.now_ms() - 1, category="now", has_pictures=False))

    def add(self, days_old: float = 0, picture: bytes | None = None, **columns: Any) -> str:
        at = clock.now_ms() - int(days_old * DAY)
        one = row(at, picture, **columns)
        data = one["id"].encode() if picture is None else picture
        self.pictures.store(one["image_sha256"], data, one["id"], b"m" * 100)
        [identifier] = add(self.database, one)
        return identifier

    def review(self, identifier: str) -> None:
        reviews.add(self.database, ANONYMOUS, identifier, "good", 0)

    def rows(self) -> dict[str, bool]:
        """Ids, and whether they have pictures."""
        with self.database.read() as connection:
            columns = inspections.c
            return {
                row.id: row.has_pictures
                for row in connection.execute(select(columns.id, columns.has_pictures))
                if row.id not in self.now
            }

    def files(self) -> tuple[int, int]:
        """How many pictures and maps there are on disk."""
        root = self.pictures.picture_path("00").parent.parent
        maps = self.pictures.map_path("00").parent.parent
        return tuple(sum(path.is_file() for path in folder.rglob("*")) for folder in (root, maps))  # type: ignore[return-value]

    def whole(self) -> None:
        """Every row that says so has its files, and there are no others."""
        with self.database.read() as connection:
            columns = inspections.c
            found = connection.execute(
                select(columns.id, columns.image_sha256).where(columns.has_pictures)
            ).all()
        assert all(self.pictures.picture_path(sha).is_file() for _, sha in found)
        assert all(self.pictures.map_path(identifier).is_file() for identifier, _ in found)
        assert self.files() == (len({sha for _, sha in found}), len(found))

    def apply(self, between: Callable[[], None] = lambda: None, **settings: Any) -> Retention:
        """Delete once; a function is called before each step, in the writer's thread."""
        with ThreadPoolExecutor(1) as writer:

            def in_writer(step: Callable[[], bool]) -> "Future[bool]":
                writer.submit(between).result()
                return writer.submit(step)

            made = Retention(Settings(**settings), self.database, self.pictures, in_writer)
            asyncio.run(made.once())
        return made

    def again(self, made: Retention, rounds: int = 1) -> None:
        """The next minutes."""
        with ThreadPoolExecutor(1) as writer:
            made._in_writer = writer.submit
            for _ in range(rounds):
                asyncio.run(made.once())


@pytest.fixture
def kept(database: Database, tmp_path: Path) -> Kept:
    return Kept(database, tmp_path / "history")


def test_without_settings_everything_stays(kept: Kept) -> None:
    ids = [kept.add(1000), kept.add(1000, decision="REJECT")]
    kept.apply()
    assert sorted(kept.rows()) == sorted(ids)
    kept.whole()


def test_each_decision_has_its_own_age(kept: Kept) -> None:
    expected = set()
    for decision, days in (("PASS", 1), ("REVIEW", 10), ("REJECT", 100)):
        kept.add(days * 1.01, decision=decision)
        expected.add(kept.add(days * 0.99, decision=decision))
    kept.apply(retention_pass_days=1, retention_review_days=10, retention_reject_days=100)
    assert set(kept.rows()) == expected
    kept.whole()


def test_a_reviewed_inspection_stays_whatever_its_age(kept: Kept) -> None:
    reviewed, other = kept.add(9), kept.add(9)
    kept.review(reviewed)
    kept.apply(retention_pass_days=1, retention_bytes=1)
    assert kept.rows() == {reviewed: True}
    kept.whole()
    del other


def test_more_than_one_step_is_taken_where_needed(kept: Kept) -> None:
    for _ in range(450):
        kept.add(5, PICTURE)
    young = kept.add(0, b"another")
    kept.apply(retention_pass_days=1)
    assert kept.rows() == {young: True}
    kept.whole()


def test_a_picture_stays_as_long_as_an_inspection_shows_it(kept: Kept) -> None:
    kept.add(9, PICTURE)
    young = kept.add(0, PICTURE)
    kept.apply(retention_pass_days=1)
    assert kept.rows() == {young: True}
    assert kept.files() == (1, 1)
    kept.apply(retention_pass_days=1e-9)
    assert kept.files() == (0, 0)


def test_counts_begin_after_what_was_deleted(kept: Kept) -> None:
    kept.add(9)
    kept.add(9, decision="REJECT")
    before = clock.now_ms()
    kept.apply(retention_pass_days=2, retention_reject_days=20)
    with kept.database.read() as connection:
        noted = {one.decision: one.deleted_before_ms for one in connection.execute(select(retention))}
    assert list(noted) == ["PASS"]
    assert noted["PASS"] == pytest.approx(before - 2 * DAY, abs=60_000)
    kept.add(9)
    kept.apply(retention_pass_days=5)
    with kept.database.read() as connection:  # never earlier than it was
        assert connection.scalar(select(retention.c.deleted_before_ms)) == noted["PASS"]


def test_beyond_the_bytes_the_oldest_pictures_go_and_rows_stay(kept: Kept) -> None:
    ids = [kept.add(10 - i, bytes([i]) * 900) for i in range(10)]
    kept.apply(retention_bytes=5000)
    # Down to 95 %, so that not every minute begins by counting.
    assert kept.rows() == dict.fromkeys(ids[:6], False) | dict.fromkeys(ids[6:], True)
    kept.whole()


def test_passed_ones_go_before_the_review_band_and_rejected_ones(kept: Kept) -> None:
    reject = kept.add(30, b"r" * 900, decision="REJECT")
    review = kept.add(20, b"v" * 900, decision="REVIEW")
    passed = kept.add(1, b"p" * 900)
    kept.apply(retention_bytes=2200)
    assert kept.rows() == {reject: True, review: True, passed: False}
    kept.apply(retention_bytes=1200)
    assert kept.rows() == {reject: True, review: False, passed: False}
    kept.whole()


def test_a_shared_picture_counts_once_and_frees_its_bytes_with_the_last(kept: Kept) -> None:
    shared = [kept.add(10 - i, PICTURE) for i in range(5)]  # 900 + 5 * 100
    young = kept.add(0, b"y" * 900)  # 1000
    kept.apply(retention_bytes=2400)
    assert all(kept.rows().values())
    kept.apply(retention_bytes=2200)  # to 2090: four maps
    assert kept.rows() == dict.fromkeys(shared[:4], False) | {shared[4]: True, young: True}
    kept.whole()
    kept.apply(retention_bytes=1500)
    assert kept.rows() == dict.fromkeys(shared, False) | {young: True}
    kept.whole()


def test_a_limit_smaller_than_one_picture_keeps_none_but_reviewed_ones(
    kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    plain, reviewed = kept.add(2, b"a" * 900), kept.add(1, b"b" * 900)
    kept.review(reviewed)
    with caplog.at_level(logging.WARNING, "flowgauge.retention"):
        made = kept.apply(retention_bytes=10)
        assert kept.rows() == {plain: False, reviewed: True}
        kept.whole()
        assert "1000 bytes" in caplog.text
        caplog.clear()
        kept.again(made, 150)  # said already
    assert not caplog.records


def test_where_only_reviewed_pictures_are_too_many_an_hour_goes_by_between_two_looks(kept: Kept) -> None:
    """Every look reads the rows of all pictures, and most often there is nothing to be done."""
    looks: list[str] = []

    def look(*arguments: Any) -> None:
        if arguments[2].startswith("SELECT") and "image_bytes" in arguments[2]:
            looks.append(arguments[2])

    reviewed = kept.add(1, b"b" * 900)
    kept.review(reviewed)
    event.listen(kept.database.engine, "before_cursor_execute", look)
    made = kept.apply(retention_bytes=10)
    assert looks
    looks.clear()
    plain = kept.add(0, b"c" * 900)
    made.on_filed([{"image_bytes": 900, "map_bytes": 100}])
    kept.again(made, 60)
    assert looks == []
    assert kept.rows() == {reviewed: True, plain: True}
    kept.again(made)
    assert looks
    assert kept.rows() == {reviewed: True, plain: False}
    looks.clear()
    kept.again(made, 60)
    assert looks == []
    kept.again(made)
    assert looks
    kept.whole()


def test_looks_go_on_when_there_was_enough_to_delete(kept: Kept) -> None:
    kept.review(kept.add(3, b"r" * 900))
    kept.add(2, b"a" * 900)
    made = kept.apply(retention_bytes=1500)
    for _ in range(3):
        kept.add(1, b"b" * 900)
        made.on_filed([{"image_bytes": 900, "map_bytes": 100}])
        kept.again(made)
        assert sum(kept.rows().values()) == 1


def test_what_is_filed_later_is_counted_too(kept: Kept) -> None:
    first = kept.add(2, b"a" * 900)
    made = kept.apply(retention_bytes=1500)
    assert kept.rows() == {first: True}
    second = kept.add(1, b"b" * 900)
    made.on_filed([{"image_bytes": 900, "map_bytes": 100}])
    kept.again(made)
    assert kept.rows() == {first: False, second: True}
    kept.whole()


def test_a_review_that_comes_between_two_steps_keeps_the_inspection(kept: Kept) -> None:
    ids = sorted(kept.add(5) for _ in range(410))
    steps = iter(range(10))

    def between() -> None:
        if next(steps) == 3:  # the clocks were looked at, and the first 200 are gone
            with pytest.raises(Problem, match="retention"):
                kept.review(ids[0])
            kept.review(ids[-1])

    kept.apply(between, retention_pass_days=1)
    assert kept.rows() == {ids[-1]: True}
    kept.whole()


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)  # SQLite has one writer at a time
def test_a_review_while_bytes_are_freed_keeps_the_picture(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = sorted(kept.add(5) for _ in range(3))
    oldest, reviewed = Retention._oldest, list[str]()

    def then_reviewed(self: Retention, connection: Connection) -> list[str]:
        found = oldest(self, connection)
        if found and not reviewed:
            kept.review(found[0])
            reviewed.append(found[0])
        return found

    monkeypatch.setattr(Retention, "_oldest", then_reviewed)
    kept.apply(retention_bytes=1)
    assert reviewed == [ids[0]]
    assert kept.rows() == dict(zip(ids, (True, False, False), strict=True))
    kept.whole()


def test_reviews_at_the_same_time_as_deletion(kept: Kept) -> None:
    """Whatever comes first: what was reviewed is there with its files, what was not is gone."""
    ids = [kept.add(5, PICTURE if i % 3 else None) for i in range(120)]

    def review(identifier: str) -> bool:
        try:
            kept.review(identifier)
        except Problem as problem:
            assert problem.name == "unknown-inspection"  # noqa: PT017
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        reviewed = [pool.submit(review, identifier) for identifier in reversed(ids)]
        kept.apply(retention_pass_days=1)
        outcome = {ids[-1 - i]: future.result() for i, future in enumerate(reviewed)}
    assert kept.rows() == {identifier: True for identifier, done in outcome.items() if done}
    kept.whole()


def test_a_file_that_cannot_be_removed_keeps_no_other(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    stuck = kept.pictures.map_path(kept.add(6))
    kept.add(5)
    stuck.unlink()
    stuck.mkdir()  # no file, so that it cannot be deleted as one
    kept.apply(retention_pass_days=1)
    assert kept.rows() == {}
    assert kept.files() == (0, 0)
    assert f"{stuck} could not be removed" in caplog.text


def test_files_without_an_inspection_are_swept_up(kept: Kept) -> None:
    identifier = kept.add()
    orphan = row()
    kept.pictures.store(orphan["image_sha256"], b"x", orphan["id"], b"y")
    stranger = kept.pictures.picture_path("00").parent / "README"
    stranger.parent.mkdir(exist_ok=True)
    stranger.write_text("not ours")
    assert kept.files() == (3, 2)
    for folder in range(256):
        sweep(kept.database, kept.pictures, f"{folder:02x}")
    assert kept.files() == (2, 1)
    assert stranger.is_file()
    assert kept.rows() == {identifier: True}


def test_a_process_killed_before_the_files_went_leaves_what_the_sweep_finds(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.add(5)
    with monkeypatch.context() as patched:
        patched.setattr(Retention, "_remove_files", lambda *_: None)
        # Of the folder that is next by the clock, which may be that of the picture.
        patched.setattr(module, "sweep", lambda *_: False)
        kept.apply(retention_pass_days=1)
    assert kept.files() == (1, 1)
    for folder in range(256):
        sweep(kept.database, kept.pictures, f"{folder:02x}")
    kept.whole()


def test_every_folder_is_swept_within_256_rounds(kept: Kept) -> None:
    """However long a round takes, and wherever it begins."""
    for number in range(256):
        orphan = row()
        kept.pictures.store(f"{number:02x}{orphan['image_sha256'][2:]}", b"x", orphan["id"], b"y")
    pictures, _ = kept.files()
    made = kept.apply()
    assert kept.files()[0] == pictures - 1
    kept.again(made, 255)
    assert kept.files() == (0, 0)


class TestWrongClock:
    """The wall clock is said here, the monotonic one too; all else is real."""

    def made(self, kept: Kept, newest_ms: int | None, **settings: Any) -> tuple[Retention, dict[str, int]]:
        made = Retention(Settings(**settings), kept.database, kept.pictures, lambda _: Future())
        said = {"wall": clock.now_ms(), "monotonic": 0}
        made._clock = SteadyClock(newest_ms, lambda: said["wall"], lambda: said["monotonic"])
        return made, said

    def test_a_minute_in_the_future_deletes_nothing(self, kept: Kept) -> None:
        ids = [kept.add(days) for days in (29, 10, 0)]
        old = kept.add(31)
        made, said = self.made(kept, clock.now_ms(), retention_pass_days=30)
        kept.again(made)
        assert old not in kept.rows()
        said["wall"] += 400 * DAY
        for _ in range(3):
            kept.again(made)
            said["monotonic"] += 60_000
        said["wall"] -= 400 * DAY - 180_000
        kept.again(made)
        assert sorted(kept.rows()) == sorted(ids)
        with kept.database.read() as connection:
            noted = connection.scalar(select(retention.c.deleted_before_ms))
        assert noted is not None
        assert noted < clock.now_ms()

    def test_what_is_due_by_the_time_before_goes_meanwhile(self, kept: Kept) -> None:
        due, young = kept.add(29.9), kept.add(20)
        made, said = self.made(kept, clock.now_ms(), retention_pass_days=30)
        kept.again(made)
        assert due in kept.rows()
        said["wall"] += 400 * DAY
        said["monotonic"] += DAY // 5
        kept.again(made)
        assert sorted(kept.rows()) == [young]

    def test_one_that_is_wrong_from_the_start_deletes_nothing(self, kept: Kept) -> None:
        """Or it is right, and the line has been at rest for 20 days: that cannot be told."""
        with kept.database.write() as connection:
            connection.execute(delete(inspections))
        ids = [kept.add(days) for days in (45, 20)]
        oldest = kept.add(51)
        made = kept.apply(retention_pass_days=30)
        assert sorted(kept.rows()) == sorted(ids)  # 30 days before the newest, and not before now
        # An inspection made since has its time from the same clock.
        add(kept.database, row(category="now", has_pictures=False))
        kept.again(made)
        assert ids[0] in kept.rows()
        assert oldest not in kept.rows()

    def test_inspections_made_before_the_first_look_do_not_vouch_for_it(self, kept: Kept) -> None:
        """As after a start without its database: they have their time from the same clock."""
        with kept.database.write() as connection:
            connection.execute(delete(inspections))
        ids = [kept.add(days) for days in (45, 20)]

        def file() -> None:
            kept.now += add(kept.database, row(category="now", has_pictures=False))

        kept.apply(file, retention_pass_days=30)
        assert sorted(kept.rows()) == sorted(ids)

    def test_a_note_from_the_future_is_corrected(self, kept: Kept) -> None:
        with kept.database.write() as connection:
            future = {"decision": "PASS", "deleted_before_ms": clock.now_ms() + 400 * DAY}
            connection.execute(insert(retention), [future])
        kept.add(9)
        kept.apply(retention_pass_days=2)
        with kept.database.read() as connection:
            noted = connection.scalar(select(retention.c.deleted_before_ms))
        assert noted == pytest.approx(clock.now_ms() - 2 * DAY, abs=60_000)


def test_of_the_events_the_newest_stay(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK_EVENTS", 300)
    happenings = [Happening("inspection", "bottle", None, "PASS", str(number)) for number in range(2000)]
    with kept.database.write() as connection:
        log.append(connection, happenings)
    kept.apply(events_kept=1000)
    with kept.database.read() as connection:
        left = log.read(connection, 0, 10_000)
    assert [event.data for event in left] == [str(number) for number in range(1000, 2000)]


def test_goes_on_after_a_failure(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.history.retention._EVERY_SECONDS", 0.01)
    kept.add(5)
    failures = iter([True, False])

    def in_writer(step: Callable[[], bool]) -> "Future[bool]":
        future: Future[bool] = Future()
        if next(failures, False):
            future.set_exception(OSError("no disk"))
        else:
            future.set_result(step())
        return future

    made = Retention(Settings(retention_pass_days=1), kept.database, kept.pictures, in_writer)

    async def run() -> None:
        task = asyncio.create_task(made.run())
        while kept.rows():
            await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(asyncio.wait_for(run(), 20))
    kept.whole()
