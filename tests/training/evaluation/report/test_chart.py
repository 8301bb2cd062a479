"""Charts as geometry: round ticks, coordinates inside the frame, paths that match the data."""

import re

import pytest

from training.evaluation.report.chart import XYChart, nice_ticks


def chart(**options: object) -> XYChart:
    given = {"title": "t", "x_label": "x", "y_label": "y", "x_range": (0.0, 10.0), "y_range": (0.0, 1.0)}
    return XYChart(**{**given, **options})  # type: ignore[arg-type]


def points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", path)]


@pytest.mark.parametrize(
    ("low", "high", "about", "ticks"),
    [
        (0, 1, 5, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 0.3, 6, [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3]),
        (3.9, 5.2, 6, [4.0, 4.5, 5.0]),
        (-1200, 900, 5, [-1000, -500, 0, 500]),
        (1e-9, 2e-9, 2, [1e-9, 1.5e-9, 2e-9]),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, about: int, ticks: list[float]) -> None:
    assert nice_ticks(low, high, about) == pytest.approx(ticks, rel=1e-9, abs=1e-12)


def test_line_goes_through_its_points() -> None:
    drawn = chart()
    left, top, right, bottom = drawn.frame
    drawn.line("a", [0, 5, 10], [0, 1, 0.5], 1)
    assert points(drawn.marks[0].path) == [
        (left, bottom),
        ((left + right) / 2, top),
        (right, (top + bottom) / 2),
    ]


def test_steps_are_level_up_to_the_next_point() -> None:
    drawn = chart()
    left, top, right, bottom = drawn.frame
    drawn.line("a", [0, 5, 10], [0, 1, 1], 1, steps=True)
    middle = (left + right) / 2
    assert points(drawn.marks[0].path) == [(left, bottom), (middle, bottom), (middle, top), (right, top)]


def test_bars_are_as_high_as_their_shares_and_stand_on_the_axis() -> None:
    drawn = chart()
    left, top, right, bottom = drawn.frame
    drawn.bars("a", [0, 5, 10], [1, 0.5], 1)
    middle = (left + right) / 2
    assert points(drawn.marks[0].path) == [
        (left, bottom),
        (left, top),
        (middle, top),
        (middle, (top + bottom) / 2),
        (right, (top + bottom) / 2),
        (right, bottom),
    ]
    assert drawn.marks[0].path.endswith("Z")
