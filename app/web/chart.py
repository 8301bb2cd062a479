"""Geometry of score drawings: a chart of many scores, and the scale of one."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from app.history.browsing import ScorePoint

WIDTH: Final = 1000
HEIGHT: Final = 340
# Labels are at the right, beside the newest scores, which a narrow screen shows first.
LEFT, RIGHT, TOP, BOTTOM = 12, 60, 14, 16
SCALE_WIDTH: Final = 400
_SCALE_MARGIN: Final = 12


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high`, which is higher, along pixels from `begin` to `end`."""

    low: float
    high: float
    begin: float
    end: float

    @classmethod
    def around(cls, values: Sequence[float], begin: float, end: float) -> Self:
        """Return an axis with a margin around the values."""
        low, high = min(values), max(values)
        air = 0.06 * (high - low) or max(abs(high) * 0.06, 1e-6)
        return cls(low - air, high + air, begin, end)

    def at(self, value: float) -> float:
        """Return the pixel of a value, rounded to a tenth and clipped to the axis."""
        share = min(max((value - self.low) / (self.high - self.low), 0), 1)
        return round(self.begin + share * (self.end - self.begin), 1)

    @property
    def step(self) -> float:
        """Round distance between ticks, for about five ticks."""
        rough = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        return next(m * power for m in (1, 2, 5, 10) if m * power >= rough)

    @property
    def ticks(self) -> list[float]:
        """Round values within the axis."""
        first, last = math.ceil(self.low / self.step), math.floor(self.high / self.step)
        return [n * self.step for n in range(first, last + 1)]

    @property
    def digits(self) -> int:
        """Number of decimals that distinguish ticks."""
        return max(0, -math.floor(math.log10(self.step)))


@dataclass(frozen=True)
class Point:
    """An inspection in a chart."""

    x: float
    y: float
    of: ScorePoint


@dataclass(frozen=True)
class ScoreChart:
    """Scores in order of time at equal distances, so that idle times take no space.

    Thresholds are SVG paths with a step at each change; `changes` are the first points of new versions.
    """

    x: Axis
    y: Axis
    points: list[Point]
    reject: str
    review: str
    changes: list[Point]

    @classmethod
    def of(cls, scored: Sequence[ScorePoint]) -> Self | None:
        """Return the chart of inspections, oldest first; None without inspections."""
        if not scored:
            return None
        values = [v for one in scored for v in (one.score, one.reject, one.review) if v is not None]
        x = Axis(-0.5, len(scored) - 0.5, LEFT, WIDTH - RIGHT)
        y = Axis.around(values, HEIGHT - BOTTOM, TOP)
        points = [Point(x.at(i), y.at(one.score), one) for i, one in enumerate(scored)]
        return cls(
            x,
            y,
            points,
            _steps(x, y, [one.reject for one in scored]),
            _steps(x, y, [one.review for one in scored]),
            [b for a, b in itertools.pairwise(points) if a.of.version != b.of.version],
        )


def _steps(x: Axis, y: Axis, values: Sequence[float | None]) -> str:
    """Return an SVG path with a level for each run of equal values, and gaps for None."""
    path, begin = "", -0.5
    drawn: float | None = None
    for value, run in itertools.groupby(values):
        end = begin + len(list(run))
        if value is not None:
            move = "M" if drawn is None else "L"
            path += f"{move}{x.at(begin)} {y.at(value)}H{x.at(end)}"
        begin, drawn = end, value
    return path


@dataclass(frozen=True)
class Scale:
    """Scale of one score: its pixel, those of thresholds, and of earlier scores with their decisions."""

    score: float
    reject: float
    review: float | None
    others: list[tuple[float, str]]

    @classmethod
    def of(cls, score: float, reject: float, review: float | None, before: Sequence[ScorePoint]) -> Self:
        """Return a scale that covers all values."""
        values = [score, reject, *(v for v in [review] if v is not None), *(one.score for one in before)]
        # A minimum width, in case all values are close together.
        values += [reject - 0.25 * abs(reject), reject + 0.25 * abs(reject)]
        axis = Axis.around(values, _SCALE_MARGIN, SCALE_WIDTH - _SCALE_MARGIN)
        return cls(
            axis.at(score),
            axis.at(reject),
            None if review is None else axis.at(review),
            [(axis.at(one.score), one.decision) for one in before],
        )
