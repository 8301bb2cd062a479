import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import alembic.command
import pytest
from sqlalchemy import delete, insert, select

from app.database import clock
from app.database.engine import Database, _migrations
from app.database.tables import inspections, watch
from app.history import retention as module
from app.history.ageless import EARLIEST_MS, mark
from app.history.entry import Entry
from app.history.history import History
from app.history.retention import Retention
from app.settings import Settings
from tests.app.history.rows import row
from tests.app.history.test_retention import DAY, Kept

YEAR_2000 = 946_684_800_000
HOUR = 3_600_000


class Filed(Kept):
    """Rows are marked as they are when they are filed; the monotonic clock is said."""

    def __init__(self, database: Database, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(database, folder)
        self.monotonic = 0
        monkeypatch.setattr(module, "monotonic_ms", lambda: self.monotonic)

    def file(self, at_ms: int, **columns: Any) -> str:
        picture = b"%0900d" % at_ms
        one = row(at_ms, picture, **columns)
        self.pictures.store(one["image_sha256"], picture, one["id"], b"m" * 100)
        with self.database.write() as connection:
            mark(connection, [one])
            connection.execute(insert(inspections), [one])
        return str(one["id"])

    def run(self, made: Retention, milliseconds: int) -> None:
        """The server runs for so long."""
        self.monotonic += milliseconds
        self.again(made)


@pytest.fixture
def filed(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Filed:
    return Filed(database, tmp_path / "history", monkeypatch)


def seen(database: Database) -> list[int | None]:
    with database.read() as connection:
        return list(connection.scalars(select(inspections.c.seen_ms).order_by(inspections.c.id)))


def test_what_is_made_while_the_clock_is_behind_is_marked_when_it_is_filed(
    history_settings: Settings, make_entry: Callable[..., Entry]
) -> None:
    now = clock.now_ms()
    times = (YEAR_2000, now, now - HOUR + 60_000, YEAR_2000 + 1, now - HOUR - 60_000, now + 1)
    entries = [make_entry(id=row(at)["id"]) for at in times]

    async def work() -> None:
        history = History(history_settings)
        await history.open()
        for entry in entries:
            await history.record(entry)
        await history.close()

    asyncio.run(work())
    database = Database(history_settings.database_url)
    assert seen(database) == [0, 0, 0, None, None, None]  # in the order of their ids
    database.close()


def test_setting_a_wrong_clock_right_deletes_nothing_that_was_made_under_it(filed: Filed) -> None:
    """After a power cut with a dead battery; then the battery is new and the server starts again."""
    for day in (11, 10, 9):
        filed.add(day, decision="REJECT")
    for day in range(8):
        filed.file(YEAR_2000 + day * DAY, decision="REJECT")
    ids = filed.rows()
    made = filed.apply(retention_reject_days=3650)
    filed.run(made, DAY)
    filed.apply(retention_reject_days=3650)
    assert filed.rows() == ids
    filed.whole()


def test_setting_the_clock_of_a_new_station_deletes_nothing_either(filed: Filed) -> None:
    """There is no earlier inspection to tell that it was behind."""
    with filed.database.write() as connection:
        connection.execute(delete(inspections))
    for at in (YEAR_2000, YEAR_2000 + HOUR, EARLIEST_MS - 1, EARLIEST_MS, clock.now_ms()):
        filed.file(at, decision="REJECT")
    assert seen(filed.database) == [0, 0, 0, None, None]
    ids = filed.rows()
    made = filed.apply(retention_reject_days=3650)
    filed.run(made, DAY + HOUR)
    assert filed.rows() == ids


def test_what_was_made_in_2000_is_marked_when_the_tables_are_brought_up_to_date(
    database: Database,
) -> None:
    ids = [row(at)["id"] for at in (YEAR_2000, EARLIEST_MS - 1, EARLIEST_MS)]
    config = _migrations()
    with database.write() as connection:
        config.attributes["connection"] = connection
        alembic.command.downgrade(config, "0002")
        connection.execute(insert(inspections), [row(id=one) for one in ids])
    database.upgrade()
    assert seen(database) == [0, 0, None]


def test_how_many_have_no_age_is_said_once(filed: Filed, caplog: pytest.LogCaptureFixture) -> None:
    """One from the future makes every later one so."""
    filed.file(clock.now_ms() + 3650 * DAY)
    filed.file(clock.now_ms())
    filed.file(clock.now_ms())
    made = filed.apply()
    filed.file(clock.now_ms())
    filed.run(made, HOUR)
    said = [line.getMessage() for line in caplog.records if "do not tell their age" in line.getMessage()]
    assert [line.partition(" ")[0] for line in said] == ["2"]


def test_it_goes_when_a_server_has_run_for_as_long_as_it_is_kept(filed: Filed) -> None:
    passed, reject = filed.file(YEAR_2000), filed.file(YEAR_2000 + 1, decision="REJECT")
    settings = {"retention_pass_days": 2, "retention_reject_days": 3}
    filed.run(filed.apply(**settings), DAY + HOUR)  # type: ignore[arg-type]
    made = filed.apply(**settings)  # type: ignore[arg-type]  # the next start
    later = filed.file(YEAR_2000)
    filed.run(made, DAY - 2 * HOUR)
    assert set(filed.rows()) == {passed, reject, later}
    filed.run(made, 2 * HOUR)
    assert set(filed.rows()) == {reject, later}
    filed.run(made, DAY)
    assert set(filed.rows()) == {later}
    filed.run(made, DAY)
    assert filed.rows() == {}
    filed.whole()


def test_an_inspection_from_the_future_keeps_none_after_it_for_ever(filed: Filed) -> None:
    future = filed.file(clock.now_ms() + 4000 * DAY)
    filed.file(clock.now_ms())
    made = filed.apply(retention_pass_days=30)
    filed.run(made, 29 * DAY)
    assert len(filed.rows()) == 2
    filed.run(made, 2 * DAY)
    assert filed.rows() == {future: True}


def test_one_that_was_reviewed_stays(filed: Filed) -> None:
    reviewed = filed.file(YEAR_2000)
    filed.review(reviewed)
    made = filed.apply(retention_pass_days=1, retention_bytes=1)
    filed.run(made, 9 * DAY)
    assert filed.rows() == {reviewed: True}


def test_beyond_the_bytes_their_pictures_go_in_their_turn(filed: Filed) -> None:
    """While the clock is behind, after all that was made before; when it is right again, between the two."""
    before = [filed.add(days, b"%0900d" % days) for days in (40, 30)]
    behind = [filed.file(YEAR_2000 + hour) for hour in range(2)]
    filed.run(filed.apply(retention_bytes=3500), DAY)
    assert filed.rows() == {before[0]: False, before[1]: True} | dict.fromkeys(behind, True)
    made = filed.apply()
    filed.run(made, 9 * DAY)
    after = [filed.add(days, b"%0900d" % days) for days in (9, 0)]
    kept = dict.fromkeys((*behind, *after), True)
    for limit, goes in ((4500, before[1]), (3500, behind[0]), (2500, behind[1]), (1500, after[0])):
        kept[goes] = False
        filed.apply(retention_bytes=limit)
        assert filed.rows() == {before[0]: False, **kept}
    filed.whole()


def test_nothing_is_written_each_minute_where_every_inspection_has_its_age(filed: Filed) -> None:
    made = filed.apply(retention_pass_days=30)
    filed.run(made, DAY)
    with filed.database.read() as connection:
        assert connection.execute(select(watch)).all() == []
