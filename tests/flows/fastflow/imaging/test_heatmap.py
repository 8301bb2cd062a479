"""Colours that mean the same on every image, and overlays that hide nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from flows.fastflow.imaging import heatmap
from flows.fastflow.imaging.heatmap import ColourScale, render_heatmap, render_overlay

SCALE = ColourScale(low=1.0, middle=3.0)  # 1 dark, 3 the threshold, 5 and beyond the brightest
PHOTO = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)

# matplotlib's inferno at 0, 0.5 and 1 (CC0), to which OpenCV's table is equal up to rounding.
DARK, MIDDLE, BRIGHT = (0, 0, 4), (188, 55, 84), (252, 255, 164)


def flat(value: float, shape: tuple[int, int] = (8, 8)) -> NDArray[np.float32]:
    return np.full(shape, value, dtype=np.float32)


@pytest.mark.parametrize(
    ("value", "colour"), [(-1e9, DARK), (0.0, DARK), (1.0, DARK), (3.0, MIDDLE), (5.0, BRIGHT), (1e9, BRIGHT)]
)
def test_colours_are_dark_middle_and_saturated(value: float, colour: tuple[int, int, int]) -> None:
    picture = render_heatmap(flat(value), SCALE)
    assert picture.shape == (8, 8, 3)
    assert picture.dtype == np.uint8
    assert np.abs(picture.astype(int) - colour).max() <= 3


def test_overlay_tints_where_it_is_hot_and_only_there() -> None:
    score_map = flat(1.0, (60, 90))
    score_map[20:40, 30:60] = 6.0
    before = PHOTO.copy()
    shown = render_overlay(PHOTO, score_map, SCALE)
    inside = np.zeros((60, 90), dtype=bool)
    inside[20:40, 30:60] = True
    np.testing.assert_array_equal(shown[~inside], before[~inside])
    expected = 0.4 * before[inside] + 0.6 * np.array(render_heatmap(flat(6.0), SCALE)[0, 0], dtype=float)
    assert np.abs(shown[inside] - expected).max() <= 0.51
    np.testing.assert_array_equal(PHOTO, before)


@pytest.mark.parametrize("size", [(61, 90), (7, 300), (300, 7), (1, 1)])
@pytest.mark.parametrize("strip", [1, 90, 1000])
def test_strips_leave_no_trace(size: tuple[int, int], strip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    score_map = rng.uniform(0, 6, (16, 16)).astype(np.float32)
    photo = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    whole = render_overlay(photo, score_map, SCALE), render_heatmap(score_map, SCALE, size)
    monkeypatch.setattr(heatmap, "_STRIP_PIXELS", strip)
    np.testing.assert_array_equal(render_overlay(photo, score_map, SCALE), whole[0])
    np.testing.assert_array_equal(render_heatmap(score_map, SCALE, size), whole[1])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_map_that_is_not_finite_is_rejected(bad: float) -> None:
    score_map = flat(1.0)
    score_map[2, 3] = bad
    with pytest.raises(ValueError, match="must be finite; 1 of 64"):
        render_heatmap(score_map, SCALE)
    with pytest.raises(ValueError, match="must be finite; 1 of 64"):
        render_overlay(PHOTO, score_map, SCALE)


@pytest.mark.parametrize(
    ("low", "middle"), [(1.0, 1.0), (2.0, 1.0), (math.nan, 1.0), (0.0, math.inf), (-math.inf, 0.0)]
)
def test_scale_without_a_direction_is_rejected(low: float, middle: float) -> None:
    with pytest.raises(ValueError, match="finite values with low < middle"):
        ColourScale(low, middle)
