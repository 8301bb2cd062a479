"""Charts as geometry: SVG coordinates from data, drawn by the template `chart.html.j2`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

WIDTH, HEIGHT = 480, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 24, 10, 48  # margins, for the labels of the axes
_ROOM = 0.04  # share of a value range, added at both ends


@dataclass(frozen=True)
class Tick:
    """A labelled mark on an axis; the position is in pixels."""

    position: float
    text: str


@dataclass(frozen=True)
class Mark:
    """A drawn element of the chart, with its entry in the legend.

    Attributes:
        name: text in the legend; empty for no entry.
        shape: "line", "area", "bars" or "rule" (a line across the chart).
        colour: 1 ... 4, or 0 for ink.
    """

    name: str
    shape: str
    colour: int
    path: str
    dashed: bool = False


@dataclass
class XYChart:
    """A chart with two axes. Marks are drawn in the order in which they were added.

    Args:
        x_range, y_range: (low, high) of the axes, low < high.
        percent: axes whose numbers are shares, "x", "y", "xy" or "".
        whole: show only whole numbers on the horizontal axis.
    """

    title: str
    x_label: str
    y_label: str
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    note: str = ""
    percent: str = ""
    whole: bool = False
    marks: list[Mark] = field(default_factory=list)
    width: int = WIDTH
    height: int = HEIGHT

    @property
    def frame(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the data area."""
        return _LEFT, _TOP, self.width - _RIGHT, self.height - _BOTTOM

    @property
    def x_ticks(self) -> list[Tick]:
        """Ticks of the horizontal axis."""
        values = [v for v in nice_ticks(*self.x_range, 6) if not self.whole or v == round(v)]
        return [Tick(round(float(self._x(v)), 1), t) for v, t in _texts(values, "x" in self.percent)]

    @property
    def y_ticks(self) -> list[Tick]:
        """Ticks of the vertical axis."""
        values = nice_ticks(*self.y_range, 5)
        return [Tick(round(float(self._y(v)), 1), t) for v, t in _texts(values, "y" in self.percent)]

    def line(
        self, name: str, x: ArrayLike, y: ArrayLike, colour: int, *, dashed: bool = False, steps: bool = False
    ) -> None:
        """Add a line through points; with `steps` it stays level up to the next point."""
        xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        if steps:
            xs, ys = np.repeat(xs, 2)[1:], np.repeat(ys, 2)[:-1]
        self.marks.append(Mark(name, "line", colour, self._path(xs, ys), dashed))

    def band(self, name: str, x: ArrayLike, low: ArrayLike, high: ArrayLike, colour: int) -> None:
        """Add the area between two lines."""
        xs = np.asarray(x, dtype=np.float64)
        around = np.concatenate([xs, xs[::-1]])
        edge = np.concatenate([np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)[::-1]])
        self.marks.append(Mark(name, "area", colour, self._path(around, edge) + "Z"))

    def bars(self, name: str, edges: ArrayLike, heights: ArrayLike, colour: int) -> None:
        """Add a histogram: bins (k + 1,) and heights (k,)."""
        sides = np.repeat(np.asarray(edges, dtype=np.float64), 2)
        tops = np.concatenate([[0.0], np.repeat(np.asarray(heights, dtype=np.float64), 2), [0.0]])
        self.marks.append(Mark(name, "bars", colour, self._path(sides, tops) + "Z"))

    def rule(self, name: str, x: float) -> None:
        """Add a vertical line at x."""
        path = self._path(np.array([x, x]), np.array(self.y_range))
        self.marks.append(Mark(name, "rule", 0, path, dashed=True))

    def _x(self, values: ArrayLike) -> NDArray[np.float64]:
        left, _, right, _ = self.frame
        low, high = self.x_range
        return np.asarray(left + (np.clip(values, low, high) - low) / (high - low) * (right - left))

    def _y(self, values: ArrayLike) -> NDArray[np.float64]:
        _, top, _, bottom = self.frame
        low, high = self.y_range
        return np.asarray(bottom - (np.clip(values, low, high) - low) / (high - low) * (bottom - top))

    def _path(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
        points = [f"{a:.1f} {b:.1f}" for a, b in zip(self._x(x), self._y(y), strict=True)]
        # Points on the same tenth of a pixel are drawn once.
        distinct = [p for p, before in zip(points, [None, *points[:-1]], strict=True) if p != before]
        return "M" + "L".join(distinct)


def nice_ticks(low: float, high: float, about: int) -> list[float]:
    """Choose about `about` round numbers in low ... high, in steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def padded(values: ArrayLike) -> tuple[float, float]:
    """Compute a non-empty range of the values with some room at both ends."""
    array = np.asarray(values, dtype=np.float64)
    low, high = float(array.min()), float(array.max())
    room = _ROOM * (high - low) or max(abs(low), 1.0) * _ROOM
    return low - room, high + room


def _texts(values: Sequence[float], percent: bool) -> list[tuple[float, str]]:
    scale, sign = (100, "\N{NO-BREAK SPACE}%") if percent else (1, "")
    step = abs(values[1] - values[0]) * scale if len(values) > 1 else 1
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [(v, f"{v * scale + 0.0:.{decimals}f}{sign}") for v in values]
