"""Images of any size before a model of one: sizes, tiles, reflection, and settings that make no sense."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from flows.fastflow.config import Geometry
from flows.fastflow.imaging.geometry import TileLayout, compute_layout
from flows.fastflow.imaging.resizing import resize

STRIDES = (8, 16, 32)
INPUT = (256, 256)


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def covered(layout: TileLayout) -> NDArray[np.int64]:
    count = np.zeros(layout.canvas, np.int64)
    for top, left in layout.corners():
        count[top : top + layout.tile[0], left : left + layout.tile[1]] += 1
    return count[layout.inside]


def test_stretching_is_the_default_and_a_plain_resize() -> None:
    geometry = Geometry()
    assert geometry.fit == "stretch"
    image = picture(100, 333)
    layout = compute_layout(geometry, (100, 333), (64, 96), STRIDES)
    assert layout.is_whole
    assert (layout.size, len(layout)) == ((64, 96), 1)
    [tile] = layout.prepare(image).tiles()
    np.testing.assert_array_equal(tile, resize(image, (64, 96), "halves-area"))


@pytest.mark.parametrize(
    ("image_size", "size"),
    [((256, 256), (256, 256)), ((512, 128), (256, 64)), ((300, 900), (85, 256)), ((1, 5000), (1, 256))],
)
def test_padding_keeps_the_aspect_ratio(image_size: tuple[int, int], size: tuple[int, int]) -> None:
    layout = compute_layout(Geometry(fit="pad"), image_size, INPUT, STRIDES)
    assert layout.size == size
    assert layout.canvas == INPUT
    assert len(layout) == 1
    image = picture(*image_size)
    prepared = layout.prepare(image)
    assert prepared.pixels.shape == (*INPUT, 3)
    np.testing.assert_array_equal(prepared.pixels[layout.inside], resize(image, size, "halves-area"))


def test_what_is_filled_is_the_images_reflection() -> None:
    image = picture(256, 101)
    prepared = compute_layout(Geometry(fit="pad"), (256, 101), INPUT, STRIDES).prepare(image)
    wanted = np.pad(image, ((0, 0), (77, 78), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(prepared.pixels, wanted)


@pytest.mark.parametrize("fit", ["stretch", "pad"])
def test_margin_is_reflected_and_does_not_count(fit: Any) -> None:
    layout = compute_layout(Geometry(fit=fit, margin=16), (300, 300), INPUT, STRIDES)
    assert (layout.size, layout.before, layout.canvas) == ((224, 224), (16, 16), INPUT)
    assert not layout.is_whole
    image = picture(300, 300)
    wanted = np.pad(resize(image, (224, 224)), ((16, 16), (16, 16), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(layout.prepare(image).pixels, wanted)


def test_tiles_show_the_image_at_its_own_scale() -> None:
    image = picture(600, 700)
    layout = compute_layout(Geometry(fit="tile"), (600, 700), INPUT, STRIDES)
    assert layout.size == (600, 700)
    prepared = layout.prepare(image)
    np.testing.assert_array_equal(prepared.pixels[layout.inside], image)
    for (top, left), tile in zip(layout.corners(), prepared.tiles(), strict=True):
        assert tile.shape == (*INPUT, 3)
        assert np.shares_memory(tile, prepared.pixels)
        np.testing.assert_array_equal(tile, prepared.pixels[top : top + 256, left : left + 256])


@given(
    st.integers(1, 600),
    st.integers(1, 600),
    st.sampled_from([0.125, 0.25, 0.5, 0.75]),
    st.sampled_from([(64, 64), (128, 96), (33, 47)]),
    st.sampled_from([0, 8]),
)
def test_tiles_cover_every_pixel_and_overlap_as_was_asked(
    height: int, width: int, overlap: float, tile: tuple[int, int], margin: int
) -> None:
    geometry = Geometry(fit="tile", overlap=overlap, margin=margin)
    layout = compute_layout(geometry, (height, width), tile, STRIDES)
    assert covered(layout).min() >= 1
    assert layout.size == (height, width)
    for side, starts in zip(tile, (layout.tops, layout.lefts), strict=True):
        steps = set(np.diff(starts).tolist())
        assert len(steps) <= 1
        assert all(0 < step <= side * (1 - overlap) for step in steps)
    # The margin is there on every side, and as little is reflected as the steps allow.
    for before, size, canvas in zip(layout.before, layout.size, layout.canvas, strict=True):
        assert before >= margin or canvas in tile
        assert canvas - size - before >= margin or canvas in tile


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        ({"scale": 0.5}, (500, 1000)),
        ({"scale": 1.25}, (1250, 2500)),
        ({"scale": 4.0}, (1448, 2896)),  # 2 ** 22 pixels
        ({"working_size": 512}, (256, 512)),
        ({"max_pixels": 20_000}, (100, 200)),
        ({"working_size": 4000, "max_pixels": 2**24}, (2000, 4000)),
    ],
)
def test_the_working_scale(asked: dict[str, Any], size: tuple[int, int]) -> None:
    layout = compute_layout(Geometry.model_validate({"fit": "tile", **asked}), (1000, 2000), INPUT, STRIDES)
    assert layout.size == size


@given(st.integers(1, 16_384), st.integers(1, 16_384), st.sampled_from([None, 4.0]))
def test_no_image_costs_more_than_is_allowed(height: int, width: int, scale: float | None) -> None:
    geometry = Geometry(fit="tile", scale=scale)
    layout = compute_layout(geometry, (height, width), INPUT, STRIDES)
    assert math.prod(layout.size) <= geometry.max_pixels
    assert max(layout.size) <= 16_384
    assert len(layout) <= 200
    if min(layout.size) > 32:
        assert layout.size[0] / layout.size[1] == pytest.approx(height / width, rel=0.05)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"fit": "crop"}, "Input should be 'stretch', 'pad' or 'tile'"),
        ({"fit": "tile", "scale": math.nan}, "finite number"),
        ({"fit": "tile", "scale": 1.0, "working_size": 512}, "contradict each other; set one of them"),
        ({"fit": "pad", "overlap": 0.5}, "geometry.overlap needs geometry.fit: tile"),
        ({"scale": 0.5}, "geometry.scale needs geometry.fit: tile"),
    ],
)
def test_settings_that_make_no_sense_are_rejected(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Geometry.model_validate(asked)


def test_margins_must_leave_half_of_the_input() -> None:
    Geometry(margin=16).require_room((64, 96))
    with pytest.raises(ValueError, match=r"a geometry\.margin of 17 .* set at most 16"):
        compute_layout(Geometry(margin=17), (100, 100), (64, 96), STRIDES)
