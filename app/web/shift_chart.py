"""The bars of a shift: decisions per hour, or per day where it is long."""

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
_MOST_HOURS: Final = 48  # of a bar each; beyond, a bar is a day


class BarSegment(NamedTuple):
    """A piece of a bar: from x on, so wide, of WIDTH."""

    decision: Decision
    x: float
    width: float


class Bar(NamedTuple):
    """Decisions in a step of a shift.

    Attributes:
        begin: of the step, ISO 8601.
        day: the date by the clocks of the time zone, ISO 8601; None of an hour.
        total: inspections in it.
        rejected: those that were rejected.
        passed: the share that passed, None without inspections.
        segments: the bar; as long as the busiest one where it has as many inspections.
    """

    begin: str
    day: str | None
    total: int
    rejected: int
    passed: float | None
    segments: Sequence[BarSegment]


class Bars(NamedTuple):
    """The bars of a category, in the order of time; `daily` where each is a day."""

    bars: Sequence[Bar]
    daily: bool


def bars(hours: Sequence[HourCounts], span: TimeSpan, zone: tzinfo = UTC) -> Bars:
    """Put the hours of a category into bars; an hour without inspections within the time has an empty one.

    Days are those of a time zone, of 23 hours or 25 where its summer time begins or ends. They are of whole
    hours of UTC: one that midnight is within is of the day before, but the first is of the day that the time
    begins on.
    """
    first = span.from_ms // HOUR_MS
    last = max(first, (span.to_ms - 1) // HOUR_MS)
    daily = last - first >= _MOST_HOURS
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
