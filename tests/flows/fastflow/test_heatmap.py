"""Colours that mean the same on every image, overlays that hide nothing, sheets one can read."""

from __future__ import annotations

import io
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from flows.fastflow import heatmap
from flows.fastflow.heatmap import ColourScale, colours, contact_sheet, encode_png, overlay
from flows.fastflow.images import decode

SCALE = ColourScale(low=1.0, middle=3.0)  # 1 dark, 3 the threshold, 5 and beyond the brightest
PHOTO = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)

# matplotlib's inferno at 0, 0.5 and 1 (CC0), to which OpenCV's table is equal up to rounding.
DARK, MIDDLE, BRIGHT = (0, 0, 4), (188, 55, 84), (252, 255, 164)


def flat(value: float, shape: tuple[int, int] = (8, 8)) -> NDArray[np.float32]:
    return np.full(shape, value, dtype=np.float32)


def luminance(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    light: NDArray[np.float64] = rgb.astype(np.float64) @ np.array([0.2126, 0.7152, 0.0722])
    return light


@pytest.mark.parametrize(
    ("value", "colour"),
    [(-1e9, DARK), (0.0, DARK), (1.0, DARK), (3.0, MIDDLE), (5.0, BRIGHT), (1e9, BRIGHT)],
)
def test_low_is_dark_the_threshold_is_the_middle_and_the_rest_saturates(
    value: float, colour: tuple[int, int, int]
) -> None:
    picture = colours(flat(value), SCALE)
    assert picture.shape == (8, 8, 3)
    assert picture.dtype == np.uint8
    assert np.abs(picture.astype(int) - colour).max() <= 3


def test_a_typical_good_part_is_dark_and_its_overlay_is_the_part() -> None:
    # Scores of a typical good part: about low, the highest of them still less than half-way to the threshold.
    score_map = np.random.default_rng(1).uniform(0.5, 1.9, (64, 64)).astype(np.float32)
    assert luminance(colours(score_map, SCALE)).max() < 40
    np.testing.assert_array_equal(overlay(PHOTO, score_map, SCALE), PHOTO)


@given(arrays(np.float32, (6, 5), elements=st.floats(-10, 10, width=32)))
def test_the_scale_is_never_stretched_to_the_image(score_map: NDArray[np.float32]) -> None:
    picture = colours(score_map, SCALE)
    for row, column in np.ndindex(score_map.shape):
        alone = colours(score_map[row : row + 1, column : column + 1], SCALE)
        np.testing.assert_array_equal(picture[row, column], alone[0, 0])


def test_brightness_grows_with_the_score() -> None:
    ramp = np.linspace(0, 6, 600, dtype=np.float32)[None]
    light = luminance(colours(ramp, SCALE))[0]
    assert (np.diff(light) > -2).all()  # rounding of the table
    assert light[0] < 2
    assert light[-1] > 240


def test_scores_are_interpolated_and_not_colours() -> None:
    score_map = np.array([[1.0, 5.0]], dtype=np.float32)
    picture = colours(score_map, SCALE, size=(1, 100))
    assert picture.shape == (1, 100, 3)
    # Half way between dark and bright lies the colour of the threshold, not a mixture of the two.
    assert np.abs(picture[0, 49:51].astype(int) - MIDDLE).max() <= 6
    assert np.abs(picture[0, 49:51].astype(int) - np.add(DARK, BRIGHT) // 2).max() > 50


@pytest.mark.parametrize("size", [None, (8, 8), (31, 7), (2, 3), (200, 300)])
def test_size_is_height_then_width(size: tuple[int, int] | None) -> None:
    assert colours(flat(2.0), SCALE, size).shape == (*(size or (8, 8)), 3)


def opacity(heat: float) -> float:
    """How much of a white picture the tint at a position of the colour bar has replaced."""
    value = 1 + 4 * heat
    white = np.full((8, 8, 3), 255, dtype=np.uint8)
    channel = 2  # blue, in which inferno is far from white almost everywhere
    shown = float(overlay(white, flat(value), SCALE)[0, 0, channel])
    tint = float(colours(flat(value), SCALE)[0, 0, channel])
    return (255 - shown) / (255 - tint)


def test_opacity_grows_smoothly_from_nothing() -> None:
    heats = np.linspace(0, 1, 201)
    opacities = np.array([opacity(heat) for heat in heats])
    assert (opacities[heats <= 0.25] == 0).all()
    assert opacities[heats >= 0.5] == pytest.approx(0.6, abs=0.01)
    steps = np.diff(opacities)
    assert (steps > -0.01).all()
    assert steps.max() < 0.03  # no edge


def test_an_overlay_tints_where_it_is_hot_and_only_there() -> None:
    score_map = flat(1.0, (60, 90))
    score_map[20:40, 30:60] = 6.0
    before = PHOTO.copy()
    shown = overlay(PHOTO, score_map, SCALE)
    inside = np.zeros((60, 90), dtype=bool)
    inside[20:40, 30:60] = True
    np.testing.assert_array_equal(shown[~inside], before[~inside])
    expected = 0.4 * before[inside] + 0.6 * np.array(colours(flat(6.0), SCALE)[0, 0], dtype=float)
    assert np.abs(shown[inside] - expected).max() <= 0.51
    np.testing.assert_array_equal(PHOTO, before)


def test_a_defect_can_still_be_seen_under_its_colour() -> None:
    shown = overlay(PHOTO, flat(9.0), SCALE)
    correlation = np.corrcoef(PHOTO[..., 1].ravel(), shown[..., 1].ravel())[0, 1]
    assert correlation > 0.99


def test_a_map_is_brought_to_the_size_of_the_image() -> None:
    score_map = flat(1.0, (6, 6))
    score_map[:, 3:] = 5.0  # the right half
    shown = overlay(PHOTO, score_map, SCALE)
    np.testing.assert_array_equal(shown[:, :37], PHOTO[:, :37])
    assert (shown[:, 53:] != PHOTO[:, 53:]).any(axis=2).all()
    assert overlay(PHOTO[:2, :3], score_map, SCALE).shape == (2, 3, 3)


def test_a_lone_hot_score_survives_on_a_smaller_image() -> None:
    score_map = flat(1.0, (64, 64))
    score_map[33, 33] = 100.0
    assert (overlay(PHOTO[:16, :16], score_map, SCALE) != PHOTO[:16, :16]).any()


@pytest.mark.parametrize("size", [(61, 90), (7, 300), (300, 7), (1, 1)])
@pytest.mark.parametrize("strip", [1, 90, 1000])
def test_strips_leave_no_trace(size: tuple[int, int], strip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    score_map = rng.uniform(0, 6, (16, 16)).astype(np.float32)
    photo = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    whole = overlay(photo, score_map, SCALE), colours(score_map, SCALE, size)
    monkeypatch.setattr(heatmap, "_STRIP_PIXELS", strip)
    np.testing.assert_array_equal(overlay(photo, score_map, SCALE), whole[0])
    np.testing.assert_array_equal(colours(score_map, SCALE, size), whole[1])


def test_a_large_hot_picture_takes_a_small_multiple_of_its_size() -> None:
    photo = np.zeros((4000, 3000, 3), dtype=np.uint8)
    score_map = np.random.default_rng(4).uniform(0, 9, (64, 64)).astype(np.float32)
    tracemalloc.start()
    try:
        overlay(photo, score_map, SCALE)
        colours(score_map, SCALE, (4000, 3000))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * photo.nbytes


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_map_that_is_not_finite_is_refused(bad: float) -> None:
    score_map = flat(1.0)
    score_map[2, 3] = bad
    with pytest.raises(ValueError, match="must be finite; 1 of 64"):
        colours(score_map, SCALE)
    with pytest.raises(ValueError, match="must be finite; 1 of 64"):
        overlay(PHOTO, score_map, SCALE)


@pytest.mark.parametrize("shape", [(8,), (1, 8, 8), (0, 8)])
def test_a_map_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"a score map must be \(h, w\)"):
        colours(np.zeros(shape, dtype=np.float32), SCALE)


@pytest.mark.parametrize(
    ("low", "middle"), [(1.0, 1.0), (2.0, 1.0), (math.nan, 1.0), (0.0, math.inf), (-math.inf, 0.0)]
)
def test_a_scale_without_a_direction_is_refused(low: float, middle: float) -> None:
    with pytest.raises(ValueError, match="finite values with low < middle"):
        ColourScale(low, middle)


@pytest.mark.parametrize("shape", [(1, 1, 3), (60, 90, 3), (300, 2, 3)])
def test_png_keeps_every_pixel(shape: tuple[int, int, int]) -> None:
    picture = np.random.default_rng(2).integers(0, 256, shape, dtype=np.uint8)
    data = encode_png(picture)
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        np.testing.assert_array_equal(np.array(image), picture)
    np.testing.assert_array_equal(decode(data), picture)


NOT_RGB = [
    np.zeros((4, 4), np.uint8),
    np.zeros((4, 4, 4), np.uint8),
    np.zeros((4, 4, 3), np.float32),
    np.zeros((0, 4, 3), np.uint8),
]


@pytest.mark.parametrize("picture", NOT_RGB)
def test_a_picture_that_is_not_rgb_is_refused(picture: NDArray[np.uint8]) -> None:
    for draw in (
        lambda: encode_png(picture),
        lambda: overlay(picture, flat(1.0), SCALE),
        lambda: contact_sheet([("caption", PHOTO, PHOTO, picture)]),
    ):
        with pytest.raises(ValueError, match=r"must be uint8 RGB \(H, W, 3\); got"):
            draw()


def plain(colour: tuple[int, int, int], height: int, width: int) -> NDArray[np.uint8]:
    return np.full((height, width, 3), colour, dtype=np.uint8)


RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)


def box(sheet: NDArray[np.uint8], colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of all that has a colour."""
    rows, columns = np.nonzero((sheet == colour).all(axis=2))
    return rows.min(), rows.max() + 1, columns.min(), columns.max() + 1


def test_a_sheet_shows_input_heatmap_and_overlay_side_by_side() -> None:
    sheet = contact_sheet(
        [("a wide part", plain(RED, 50, 200), plain(GREEN, 900, 900), plain(BLUE, 2000, 1000))]
    )
    boxes = [box(sheet, colour) for colour in (RED, GREEN, BLUE)]
    sizes = [(bottom - top, right - left) for top, bottom, left, right in boxes]
    assert sizes == [(80, 320), (320, 320), (320, 160)]  # the aspect ratios are kept
    centres = [((top + bottom) // 2, (left + right) // 2) for top, bottom, left, right in boxes]
    assert len({row for row, _ in centres}) == 1
    (_, first), (_, second), (_, third) = centres
    assert second - first == third - second > 320


def test_every_row_and_column_is_named() -> None:
    rows = [(caption, plain(RED, 9, 9), plain(GREEN, 9, 9), plain(BLUE, 9, 9)) for caption in "ab"]
    sheet = contact_sheet(rows)
    assert sheet.shape[0] - contact_sheet(rows[:1]).shape[0] > 320
    dark = np.asarray((sheet < 100).all(axis=2))  # ink; the pictures are coloured
    top = box(sheet, RED)[0]
    heads = np.flatnonzero(dark[: top - 30].any(axis=0))
    for colour in (RED, GREEN, BLUE):
        _, _, left, right = box(sheet, colour)
        over = heads[(heads >= left) & (heads < right)]
        assert abs(over.mean() - (left + right) / 2) < 10  # centred over its column
    assert dark[top - 30 : top].any()


def test_captions_are_the_ones_given_and_fit() -> None:
    picture = plain(RED, 20, 20)

    def sheet(caption: str) -> NDArray[np.uint8]:
        return contact_sheet([(caption, picture, picture, picture)])

    assert (sheet("PASS") != sheet("REJECT")).any()
    long = sheet("a caption that is much longer than " * 10)
    assert long.shape == sheet("").shape
    assert (long[:, -16:] == 255).all()  # the margin stays free
    np.testing.assert_array_equal(long, sheet("a caption that is much longer than " * 20))


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (321, 319)])
def test_pictures_of_any_size_are_shown(size: tuple[int, int]) -> None:
    picture = plain(RED, *size)
    sheet = contact_sheet([("caption", picture, picture, picture)])
    assert (sheet == RED).all(axis=2).any()


def test_a_sheet_without_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        contact_sheet([])
