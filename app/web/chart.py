"""Geometry of the drawings of scores: a chart of many, and the scale of one."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from app.history.browsing import ScorePoint

WIDTH: Final = 1000
HEIGHT: Final = 340
# Figures stand at the right, where the newest are and where a narrow screen looks first.
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
        """An axis with some air beyond the values."""
        low, high = min(values), max(values)
        air = 0.06 * (high - low) or max(abs(high) * 0.06, 1e-6)
        return cls(low - air, high + air, begin, end)

    def at(self, value: float) -> float:
        """The pixel of a value, to a tenth; beyond either end, the end."""
        share = min(max((value - self.low) / (self.high - self.low), 0), 1)
        return round(self.begin + share * (self.end - self.begin), 1)

    @property
    def step(self) -> float:
        """A round distance between ticks, of which about five fit."""
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
        """Decimals that tell ticks apart."""
        return max(0, -math.floor(math.log10(self.step)))


@dataclass(frozen=True)
class Point:
    """An inspection in a chart."""

    x: float
    y: float
    of: ScorePoint


@dataclass(frozen=True)
class ScoreChart:
    """Scores side by side in the order of time, each as wide as the other: nights take no room.

    Thresholds are SVG paths with a step where one changed; `changes` are places where another version began.
    """

    x: Axis
    y: Axis
    points: list[Point]
    reject: str
    review: str
    changes: list[Point]

    @classmethod
    def of(cls, scored: Sequence[ScorePoint]) -> Self | None:
        """The chart of inspections, oldest first; None where there are none."""
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
    """A path with a level for every run of equal values, and a gap where there is none."""
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
    """The scale of one score: pixels of it, of thresholds, and with decisions of inspections before."""

    score: float
    reject: float
    review: float | None
    others: list[tuple[float, str]]

    @classmethod
    def of(cls, score: float, reject: float, review: float | None, before: Sequence[ScorePoint]) -> Self:
        """The scale that has room for all of them."""
        values = [score, reject, *(v for v in [review] if v is not None), *(one.score for one in before)]
        # Were the score the threshold's neighbour and nothing else known, the scale would be a hair.
        values += [reject - 0.25 * abs(reject), reject + 0.25 * abs(reject)]
        axis = Axis.around(values, _SCALE_MARGIN, SCALE_WIDTH - _SCALE_MARGIN)
        return cls(
            axis.at(score),
            axis.at(reject),
            None if review is None else axis.at(review),
            [(axis.at(one.score), one.decision) for one in before],
        )
