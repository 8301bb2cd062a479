"""The bars of a shift: decisions per hour, or per day where it is long."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Final

from app.database import clock
from app.history.rates import DECISIONS
from app.history.reports import Span
from app.history.shift_details import HOUR_MS
from app.schemas.predict import Decision
from app.schemas.reports import HourCounts

WIDTH: Final = 1000
_MOST_HOURS: Final = 48  # of a bar each; beyond, a bar is a day


@dataclass(frozen=True)
class Part:
    """A piece of a bar: from x on, so wide, of WIDTH."""

    decision: Decision
    x: float
    width: float


@dataclass(frozen=True)
class Bar:
    """Decisions in a step of a shift.

    Attributes:
        begin: of the step, ISO 8601.
        day: the date by the clocks of the time zone, ISO 8601; None of an hour.
        total: inspections in it.
        rejected: those that were rejected.
        passed: the share that passed, None without inspections.
        parts: the bar; as long as the busiest one where it has as many inspections.
    """

    begin: str
    day: str | None
    total: int
    rejected: int
    passed: float | None
    parts: Sequence[Part]


@dataclass(frozen=True)
class Bars:
    """The bars of a category, in the order of time; `daily` where each is a day."""

    bars: Sequence[Bar]
    daily: bool


def bars(hours: Sequence[HourCounts], span: Span, zone: tzinfo = UTC) -> Bars:
    """Put the hours of a category into bars; an hour without inspections within the time has an empty one.

    Days are those of a time zone, of 23 hours or 25 where its summer time begins or ends. They are of whole
    hours of UTC: one that midnight is within is of the day before, but the first is of the day that the time
    begins on.
    """
    first = span.from_ms // HOUR_MS
    last = max(first, (span.to_ms - 1) // HOUR_MS)
    daily = last - first >= _MOST_HOURS

    def begin_ms(hour: int) -> int:
        return max(hour * HOUR_MS, span.from_ms) if daily else hour * HOUR_MS

    def step(hour: int) -> Hashable:
        return datetime.fromtimestamp(begin_ms(hour) // 1000, zone).date() if daily else hour

    begins: dict[Hashable, int] = {}
    for hour in range(first, last + 1):
        begins.setdefault(step(hour), hour)
    counts: dict[Hashable, dict[Decision, int]] = {one: {} for one in begins}
    for one in hours:
        mine = counts[step(clock.from_datetime(datetime.fromisoformat(one.from_)) // HOUR_MS)]
        for decision, n in one.decisions.items():
            mine[decision] = mine.get(decision, 0) + n
    busiest = max((sum(some.values()) for some in counts.values()), default=0)
    made = [
        _bar(begin_ms(begins[one]), str(one) if daily else None, some, busiest)
        for one, some in counts.items()
    ]
    return Bars(made, daily)


def _bar(begin_ms: int, day: str | None, counts: dict[Decision, int], busiest: int) -> Bar:
    total = sum(counts.values())
    parts, x = [], 0.0
    for decision in DECISIONS:
        width = round(WIDTH * counts.get(decision, 0) / busiest, 1) if busiest else 0.0
        if width:
            parts.append(Part(decision, round(x, 1), width))
        x += width
    passed = counts.get("PASS", 0) / total if total else None
    return Bar(clock.iso(begin_ms), day, total, counts.get("REJECT", 0), passed, parts)
