"""Bars of a shift: decisions per hour, or per day for a long span."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from typing import Final, NamedTuple

from app.database import clock
from app.history.decision_counts import TimeSpan
from app.history.rates import DECISIONS
from app.history.shift_report import HOUR_MS
from app.schemas.predict import Decision
from app.schemas.reports import HourCounts

WIDTH: Final = 1000
_MAX_HOURS: Final = 48  # longer spans get a bar per day


class BarSegment(NamedTuple):
    """Segment of a bar, in units of WIDTH."""

    decision: Decision
    x: float
    width: float


class Bar(NamedTuple):
    """Decisions in a step of a shift.

    Attributes:
        begin: of the step, ISO 8601.
        day: date in the time zone, ISO 8601; None for an hour.
        passed: share that passed; None without inspections.
        segments: of the bar, whose length is relative to the busiest step.
    """

    begin: str
    day: str | None
    total: int
    rejected: int
    passed: float | None
    segments: Sequence[BarSegment]


class Bars(NamedTuple):
    """Bars of a category in order of time; `daily` if each is a day."""

    bars: Sequence[Bar]
    daily: bool


def bars(hours: Sequence[HourCounts], span: TimeSpan, zone: tzinfo = UTC) -> Bars:
    """Group the hours of a category into bars; hours without inspections get empty bars.

    Days are those of a time zone and may have 23 or 25 hours. They consist of whole UTC hours: an hour that
    contains midnight belongs to the day before. The first hour belongs to the day on which the span begins.
    """
    first = span.from_ms // HOUR_MS
    last = max(first, (span.to_ms - 1) // HOUR_MS)
    daily = last - first >= _MAX_HOURS
    begins: dict[str, int] = {}
    counts: dict[str, Counter[Decision]] = {}

    def step(hour: int) -> str:
        begin_ms = max(hour * HOUR_MS, span.from_ms) if daily else hour * HOUR_MS
        name = datetime.fromtimestamp(begin_ms // 1000, zone).date().isoformat() if daily else str(hour)
        begins.setdefault(name, begin_ms)
        counts.setdefault(name, Counter())
        return name

    for hour in range(first, last + 1):
        step(hour)
    for one in hours:
        counts[step(clock.from_datetime(datetime.fromisoformat(one.from_)) // HOUR_MS)].update(one.decisions)
    busiest = max(some.total() for some in counts.values()) or 1
    made = [_bar(begins[name], name if daily else None, some, busiest) for name, some in counts.items()]
    return Bars(made, daily)


def _bar(begin_ms: int, day: str | None, counts: Counter[Decision], busiest: int) -> Bar:
    segments, x = [], 0.0
    for decision in DECISIONS:
        width = round(WIDTH * counts[decision] / busiest, 1)
        if width:
            segments.append(BarSegment(decision, round(x, 1), width))
        x += width
    total = counts.total()
    passed = counts["PASS"] / total if total else None
    return Bar(clock.iso(begin_ms), day, total, counts["REJECT"], passed, segments)
