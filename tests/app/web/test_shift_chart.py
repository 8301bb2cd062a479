"""The bars of a shift, by hand."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from app.database import clock
from app.history.decision_counts import TimeSpan
from app.history.shift_report import HOUR_MS
from app.schemas.predict import Decision
from app.schemas.reports import HourCounts
from app.web.shift_chart import bars

BEGIN = 1_790_000_000_000 // HOUR_MS * HOUR_MS


def hour(number: int, decisions: dict[Decision, int]) -> HourCounts:
    return HourCounts(from_=clock.iso(BEGIN + number * HOUR_MS), decisions=decisions)


def test_bar_length_is_the_share_of_the_busiest_hour() -> None:
    span = TimeSpan(BEGIN + 1000, BEGIN + 3 * HOUR_MS)
    made = bars([hour(0, {"PASS": 6, "REVIEW": 1, "REJECT": 1}), hour(2, {"PASS": 3, "REJECT": 1})], span)
    assert not made.daily
    assert {one.day for one in made.bars} == {None}
    first, quiet, last = made.bars
    assert (first.begin, first.total, first.rejected, first.passed) == (clock.iso(BEGIN), 8, 1, 0.75)
    segments = [(one.decision, one.x, one.width) for one in first.segments]
    assert segments == [("PASS", 0, 750), ("REVIEW", 750, 125), ("REJECT", 875, 125)]
    assert (quiet.total, quiet.passed, quiet.segments) == (0, None, [])
    assert [(one.decision, one.width) for one in last.segments] == [("PASS", 375), ("REJECT", 125)]


def test_a_long_time_has_a_bar_a_day() -> None:
    day = BEGIN // (24 * HOUR_MS) * 24
    first = day - BEGIN // HOUR_MS
    hours = [hour(first + n, {"PASS": 1}) for n in (0, 23, 24)]
    made = bars(hours, TimeSpan(day * HOUR_MS, (day + 72) * HOUR_MS))
    assert made.daily
    assert [one.total for one in made.bars] == [2, 1, 0]


def test_days_are_those_of_the_place_also_when_summer_time_ends() -> None:
    """On 25 October 2026 Berlin's clocks go back: 25 hours."""

    def at(day: int, hours: int) -> int:
        return clock.from_datetime(datetime(2026, 10, day, hours, tzinfo=UTC))

    begin = at(23, 22)
    hours = [
        hour((at(day, utc) - BEGIN) // HOUR_MS, {"PASS": day}) for day, utc in ((24, 22), (25, 22), (26, 23))
    ]
    made = bars(hours, TimeSpan(begin, at(27, 23)), ZoneInfo("Europe/Berlin"))
    begins = [at(23, 22), at(24, 22), at(25, 23), at(26, 23)]
    assert [one.begin for one in made.bars] == [clock.iso(ms) for ms in begins]
    assert [one.day for one in made.bars] == [f"2026-10-{day}" for day in (24, 25, 26, 27)]
    assert [one.total for one in made.bars] == [0, 24 + 25, 0, 26]


def test_first_day_is_that_of_the_start_off_full_hours() -> None:
    """Kolkata is five and a half hours ahead: its days begin at 18:30 of UTC."""
    begin = clock.from_datetime(datetime(2026, 10, 23, 18, 30, tzinfo=UTC))
    first = begin // HOUR_MS - BEGIN // HOUR_MS
    hours = [hour(first + n, {"PASS": 1}) for n in (0, 23, 24, 25, 72)]
    made = bars(hours, TimeSpan(begin, begin + 72 * HOUR_MS), ZoneInfo("Asia/Kolkata"))
    begins = [begin, *(begin + n * 24 * HOUR_MS + HOUR_MS // 2 for n in (1, 2))]
    assert [one.begin for one in made.bars] == [clock.iso(ms) for ms in begins]
    assert [one.total for one in made.bars] == [3, 1, 1]
