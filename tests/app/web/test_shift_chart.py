"""The bars of a shift, by hand."""

from typing import Any

import pytest

from app.database import clock
from app.history.reports import Span
from app.history.shift_details import HOUR_MS
from app.schemas.reports import HourCounts
from app.web.shift_chart import bars

BEGIN = 1_790_000_000_000 // HOUR_MS * HOUR_MS


def hour(number: int, **decisions: Any) -> HourCounts:
    return HourCounts(from_=clock.iso(BEGIN + number * HOUR_MS), decisions=decisions)


def test_every_hour_has_a_bar_as_long_as_its_share_of_the_busiest() -> None:
    span = Span(BEGIN + 1000, BEGIN + 3 * HOUR_MS)
    made = bars([hour(0, PASS=6, REVIEW=1, REJECT=1), hour(2, PASS=3, REJECT=1)], span)
    assert not made.daily
    first, quiet, last = made.bars
    assert (first.begin, first.total, first.rejected, first.passed) == (clock.iso(BEGIN), 8, 1, 0.75)
    assert [(one.decision, one.x, one.width) for one in first.parts] == [
        ("PASS", 0, 750),
        ("REVIEW", 750, 125),
        ("REJECT", 875, 125),
    ]
    assert (quiet.total, quiet.passed, quiet.parts) == (0, None, [])
    assert [(one.decision, one.width) for one in last.parts] == [("PASS", 375), ("REJECT", 125)]


def test_a_long_time_has_a_bar_a_day() -> None:
    made = bars([hour(0, PASS=1), hour(23, PASS=1), hour(24, PASS=1)], Span(BEGIN, BEGIN + 72 * HOUR_MS))
    assert made.daily
    assert [one.total for one in made.bars] == [2, 1, 0]


def test_two_days_are_still_hours() -> None:
    assert len(bars([], Span(BEGIN, BEGIN + 48 * HOUR_MS)).bars) == 48
    assert bars([], Span(BEGIN, BEGIN + 48 * HOUR_MS + 1)).daily


@pytest.mark.parametrize("length", [0, 1, HOUR_MS])
def test_a_short_time_is_one_hour(length: int) -> None:
    (only,) = bars([], Span(BEGIN, BEGIN + length)).bars
    assert only.parts == []
