import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select, text, update

from app.auth.permissions import ANONYMOUS
from app.database import clock
from app.database.tables import inspections, retention
from app.events import log
from app.events.log import NewEvent
from app.history import reviews
from app.history.deletions import DeletionGuard
from app.history.history import History
from app.history.retention import Retention
from app.schemas.deletions import HeldDeletion
from app.settings import Settings
from tests.app.history.rows import add, row, store_files
from tests.support.postgres import Postgres
from tests.support.waiting import until

DAY = 24 * 3_600_000
IMAGE = b"p" * 900  # with its map of 100 bytes: 1000


class Kept:
    def __init__(self, history: History) -> None:
        self.history = history
        self.guard = DeletionGuard()

    def add(self, days_old: float = 0, image: bytes | None = None, **columns: Any) -> str:
        at = clock.now_ms() - int(days_old * DAY)
        one = row(at, image, **columns)
        data = one["id"].encode() if image is None else image
        store_files(self.history.files, one["image_sha256"], data, one["id"], b"m" * 100)
        [identifier] = add(self.history.database, one)
        return identifier

    def add_many(self, count: int, days_old: float = 0) -> None:
        some = [row(clock.now_ms() - int(days_old * DAY), IMAGE) for _ in range(count)]
        for one in some:
            store_files(self.history.files, one["image_sha256"], IMAGE, one["id"], b"m" * 100)
        add(self.history.database, *some)

    def review(self, identifier: str) -> None:
        reviews.add_review(self.history.database, ANONYMOUS, identifier, "good", 0)

    def rows(self) -> dict[str, bool]:
        with self.history.database.read() as connection:
            columns = inspections.c
            query = select(columns.id, columns.has_pictures)
            return {row.id: row.has_pictures for row in connection.execute(query)}

    def files(self) -> tuple[set[str], set[str]]:
        folder = self.history.folder
        found = [path for path in folder.glob("*/??/*") if path.is_file()]
        images = {path.name for path in found if path.is_relative_to(folder / "pictures")}
        return images, {path.stem for path in found if path.is_relative_to(folder / "maps")}

    def require_whole(self) -> None:
        columns = inspections.c
        with self.history.database.read() as connection:
            query = select(columns.id, columns.image_sha256).where(columns.has_pictures)
            found = connection.execute(query).all()
        assert self.files() == ({sha for _, sha in found}, {identifier for identifier, _ in found})

    def made(self, **settings: Any) -> Retention:
        return Retention(Settings(**settings), self.history, self.guard)

    def apply(self, **settings: Any) -> Retention:
        made = self.made(**settings)
        asyncio.run(made.once())
        if held := self.guard.held():
            for one in held:
                made.confirm(one.kind)
            asyncio.run(made.once())
        assert self.guard.held() == []
        return made

    def held_by(self, **settings: Any) -> list[HeldDeletion]:
        asyncio.run(self.made(**settings).once())
        return self.guard.held()


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    history = History(Settings(history=tmp_path / "history"))
    asyncio.run(history.open())
    yield Kept(history)
    asyncio.run(history.close())


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    original = time.time_ns
    return lambda days: monkeypatch.setattr(time, "time_ns", lambda: original() + int(days * DAY) * 1_000_000)


def test_each_decision_has_its_own_retention_time(kept: Kept) -> None:
    kept.add(1000)
    kept.apply()
    assert len(kept.rows()) == 1
    expected = set()
    for decision, days in (("PASS", 1), ("REVIEW", 10), ("REJECT", 100)):
        kept.add(days * 1.01, decision=decision)
        expected.add(kept.add(days * 0.99, decision=decision))
    kept.apply(retention_pass_days=1, retention_review_days=10, retention_reject_days=100)
    assert set(kept.rows()) == expected
    kept.require_whole()


def test_reviewed_inspection_stays_at_any_age(kept: Kept) -> None:
    reviewed = kept.add(9)
    kept.add(9)
    kept.review(reviewed)
    kept.apply(retention_pass_days=1, retention_bytes=1)
    assert kept.rows() == {reviewed: True}
    kept.require_whole()


def test_old_inspections_are_deleted_in_steps(kept: Kept) -> None:
    kept.add_many(450, days_old=5)
    young = kept.add(0, b"another")
    kept.apply(retention_pass_days=1)
    assert kept.rows() == {young: True}
    kept.require_whole()


def test_image_stays_while_an_inspection_has_it(kept: Kept) -> None:
    kept.add(9, IMAGE)
    young = kept.add(0, IMAGE)
    kept.apply(retention_pass_days=1)
    assert kept.rows() == {young: True}
    kept.require_whole()
    kept.apply(retention_pass_days=1e-9)
    assert kept.files() == (set(), set())


def test_counts_begin_after_deleted_inspections(kept: Kept) -> None:
    def noted() -> dict[str, int | None]:
        with kept.history.database.read() as connection:
            found = connection.execute(select(retention))
            return {one.decision: one.deleted_before_ms for one in found}

    kept.add(9)
    kept.add(9, decision="REJECT")
    before = clock.now_ms()
    kept.apply(retention_pass_days=2, retention_reject_days=20)
    first = noted()
    assert first == {"PASS": pytest.approx(before - 2 * DAY, abs=60_000), "REJECT": None}
    kept.add(9)
    kept.apply(retention_pass_days=5)
    assert noted() == first  # never earlier than it was


def test_size_limit_deletes_oldest_images_and_keeps_rows(kept: Kept) -> None:
    ids = [kept.add(10 - i, bytes([i]) * 900) for i in range(10)]
    kept.apply(retention_bytes=5000)
    # Down to 95 %, so that not every minute begins by counting.
    assert kept.rows() == dict.fromkeys(ids[:6], False) | dict.fromkeys(ids[6:], True)
    kept.require_whole()


def test_passed_inspections_lose_files_first(kept: Kept) -> None:
    reject = kept.add(30, b"r" * 900, decision="REJECT")
    review = kept.add(20, b"v" * 900, decision="REVIEW")
    passed = kept.add(1, b"p" * 900)
    kept.apply(retention_bytes=2200)
    assert kept.rows() == {reject: True, review: True, passed: False}
    kept.apply(retention_bytes=1200)
    assert kept.rows() == {reject: True, review: False, passed: False}
    kept.require_whole()


def test_audit_sample_is_kept_as_long_as_rejects(kept: Kept) -> None:
    audited = kept.add(15, b"a" * 900, audit=True)
    reject = kept.add(15, b"r" * 900, decision="REJECT")
    kept.add(15)
    days = {"retention_pass_days": 10, "retention_review_days": 10}
    kept.apply(**days, retention_reject_days=20)
    assert kept.rows() == {audited: True, reject: True}
    kept.apply(**days, retention_reject_days=20, retention_bytes=1200)
    assert kept.rows() == {audited: True, reject: False}
    kept.apply(**days, retention_reject_days=12)
    assert kept.files() == (set(), set())


def test_shared_image_stays_until_its_last_inspection_goes(kept: Kept) -> None:
    shared = [kept.add(10 - i, IMAGE) for i in range(3)]
    young = kept.add(0, b"y" * 900)
    kept.apply(retention_bytes=2200)
    assert kept.rows() == dict.fromkeys(shared[:2], False) | {shared[2]: True, young: True}
    kept.require_whole()
    kept.apply(retention_bytes=1100)
    assert kept.rows() == dict.fromkeys(shared, False) | {young: True}
    kept.require_whole()


def test_too_many_reviewed_images_are_logged_once(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    plain, reviewed = kept.add(2, b"a" * 900), kept.add(1, b"b" * 900)
    kept.review(reviewed)
    with caplog.at_level(logging.WARNING, "flowgauge.retention"):
        made = kept.apply(retention_bytes=10)
        for _ in range(3):
            asyncio.run(made.once())
    assert kept.rows() == {plain: False, reviewed: True}
    assert caplog.text.count("1000 bytes of reviewed inspections, which are") == 1


def test_bytes_stored_later_are_counted(kept: Kept) -> None:
    ids = [kept.add(10 - i, bytes([i]) * 900) for i in range(5)]
    made = kept.apply(retention_bytes=5000)
    assert all(kept.rows().values())
    ids.append(kept.add(1, b"b" * 900))
    made.on_filed([{"image_bytes": 900, "map_bytes": 100}])
    asyncio.run(made.once())
    assert kept.rows() == dict.fromkeys(ids[:2], False) | dict.fromkeys(ids[2:], True)


@pytest.mark.parametrize("is_due", [False, True])
def test_bytes_that_other_servers_store_are_counted_now_and_then(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_due: bool
) -> None:
    monkeypatch.setattr("app.history.retention._COUNT_SECONDS", 0 if is_due else 600)
    with postgres.database() as url:
        history = History(Settings(history=tmp_path / "history", database=url))
        asyncio.run(history.open())
        kept = Kept(history)
        ids = [kept.add(10 - i, bytes([i]) * 900) for i in range(5)]
        made = kept.apply(retention_bytes=5000)
        ids.append(kept.add(1, b"b" * 900))  # no `on_filed`
        asyncio.run(made.once())
        assert [kept.rows()[one] for one in ids] == [not is_due] * 2 + [True] * 4
        asyncio.run(history.close())


@pytest.mark.parametrize(
    ("settings", "left"),
    [({"retention_bytes": 1}, [True, False, False]), ({"retention_pass_days": 1}, [True])],
)
def test_concurrent_review_keeps_the_inspection(
    postgres: Postgres, tmp_path: Path, settings: dict[str, float], left: list[bool]
) -> None:
    """PostgreSQL lets a deletion begin during a review; SQLite has one writer."""
    with postgres.database() as url, ThreadPoolExecutor(1) as pool:
        history = History(Settings(history=tmp_path / "history", database=url))
        asyncio.run(history.open())
        kept = Kept(history)
        ids = sorted(kept.add(5) for _ in range(3))
        mine = inspections.c.id == ids[0]
        with history.database.write() as connection:
            connection.execute(update(inspections).where(mine).values(review_revision=1, verdict="good"))
            deleting = pool.submit(kept.apply, **settings)
            waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
            while not deleting.done() and not connection.scalar(waiting):
                time.sleep(0.01)
        deleting.result()
        assert kept.rows() == dict(zip(ids, left, strict=False))
        kept.require_whole()
        asyncio.run(history.close())


def test_interrupted_deletion_is_repeated(kept: Kept) -> None:
    old = [kept.add(5), kept.add(6)]
    stuck = kept.history.files.map_path(old[0])
    stuck.unlink()
    stuck.mkdir()  # no file, so that it cannot be deleted as one
    with pytest.raises(OSError, match="directory"):
        kept.apply(retention_pass_days=1)
    assert len(kept.rows()) == 2
    stuck.rmdir()
    kept.apply(retention_pass_days=1)
    assert kept.rows() == {}
    kept.require_whole()


def test_few_orphaned_files_are_deleted(kept: Kept) -> None:
    kept.add_many(10)
    orphan = row()
    kept.history.files.map_path(orphan["id"]).parent.mkdir(exist_ok=True)
    kept.history.files.map_path(orphan["id"]).write_bytes(b"y")
    stranger = kept.history.folder / "pictures" / "README"
    stranger.write_text("not ours")
    assert kept.held_by() == []
    kept.require_whole()
    assert stranger.is_file()


def test_files_newer_than_a_restored_database_are_held(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    old = [kept.add() for _ in range(20)]
    new = [kept.add() for _ in range(15)]
    with kept.history.database.write() as connection:  # as the dump before them says
        connection.execute(delete(inspections).where(inspections.c.id.in_(new)))
    [held] = kept.held_by()
    assert (held.kind, held.count, held.total) == ("orphans", 30, 70)
    assert "30 of 70 files" in held.reason
    assert [line.levelno for line in caplog.records if "until an administrator" in line.message] == [
        logging.ERROR
    ]
    assert [len(names) for names in kept.files()] == [35, 35]
    made = kept.made()
    made.confirm("orphans")
    asyncio.run(made.once())
    assert sorted(kept.rows()) == sorted(old)
    kept.require_whole()


def test_deletion_by_a_wrong_clock_is_held(kept: Kept, set_clock: Callable[[float], None]) -> None:
    settings = {"retention_pass_days": 30, "retention_reject_days": 400}
    kept.add_many(120, days_old=5)
    assert kept.held_by(**settings) == []
    set_clock(365)
    kept.add()
    [held] = kept.held_by(**settings)
    assert (held.kind, held.count, held.total) == ("age", 120, 121)
    [held] = kept.held_by(**settings)  # and still, as long as nobody confirms it
    assert len(kept.rows()) == 121
    set_clock(0)
    assert kept.held_by(**settings) == []
    assert len(kept.rows()) == 121
    set_clock(365)  # what it was is forgotten when it is right again
    assert kept.held_by(**settings) != []


@pytest.mark.parametrize(
    ("days", "days_off", "left"), [(7, 3, 0), (7, 3.6, 150), (60, 13.9, 0), (60, 14.1, 150)]
)
def test_inspections_expired_while_off_are_deleted(
    kept: Kept, set_clock: Callable[[float], None], days: int, days_off: float, left: int
) -> None:
    kept.add_many(150, days_old=days - 2)
    assert kept.held_by(retention_pass_days=days) == []
    set_clock(days_off)
    assert [one.kind for one in kept.held_by(retention_pass_days=days)] == ["age"] * bool(left)
    assert len(kept.rows()) == left


def test_deletion_by_a_much_tighter_setting_is_held(kept: Kept) -> None:
    kept.add_many(150, days_old=20)
    assert kept.held_by(retention_pass_days=30) == []
    assert [one.count for one in kept.held_by(retention_pass_days=3)] == [150]


def test_large_deletion_by_size_is_held(kept: Kept) -> None:
    size = 50 * 2**20 - 100  # with its map of 100 bytes: 50 MiB
    for i in range(10):
        kept.add(10 - i, image_bytes=size)
    [held] = kept.held_by(retention_bytes=400 * 2**20)
    assert (held.kind, held.count, held.total) == ("size", 120 * 2**20, 500 * 2**20)
    assert all(kept.rows().values())
    assert kept.held_by(retention_bytes=2**30) == []


def test_newest_events_stay(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.history.retention._CHUNK_EVENTS", 300)
    happenings = [NewEvent("inspection", "bottle", None, "PASS", str(number)) for number in range(2000)]
    with kept.history.database.write() as connection:
        log.append(connection, happenings)
    kept.apply(events_kept=1000)
    with kept.history.database.read() as connection:
        left = log.read(connection, 0, 10_000)
    assert [event.data for event in left] == [str(number) for number in range(1000, 2000)]


@pytest.mark.anyio
async def test_retention_continues_after_failure_and_confirmation(
    kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    kept.add_many(150, days_old=5)
    stuck = kept.history.files.map_path(min(kept.rows()))
    stuck.unlink()
    stuck.mkdir()
    made = kept.made(retention_pass_days=1)
    task = asyncio.create_task(made.run())
    for obstacle in (True, False):
        await until(lambda: kept.guard.held() != [])
        if not obstacle:
            stuck.rmdir()
        made.confirm("age")
        if obstacle:
            await until(lambda: "retention could not delete" in caplog.text)
            made._wake.set()  # a minute later
    await until(lambda: kept.rows() == {})
    task.cancel()
