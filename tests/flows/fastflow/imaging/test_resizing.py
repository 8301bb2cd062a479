"""Sizes of images: areas averaged, sides halved, growing interpolated."""

from __future__ import annotations

import numpy as np
import pytest

from flows.fastflow.imaging.resizing import resize

HEIGHT, WIDTH = 37, 53  # odd and unequal
RGB = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def test_shrinking_averages_the_area() -> None:
    image = np.arange(4 * 6 * 3, dtype=np.float32).reshape(4, 6, 3)
    means = image.reshape(2, 2, 3, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(resize(image, (2, 3)), means)
    # A lone bright pixel still counts where bilinear interpolation would step over it.
    dot = np.zeros((64, 64, 3), np.uint8)
    dot[12, 12] = 255
    assert resize(dot, (16, 16)).max() > 0


@pytest.mark.parametrize("size", [(64, 64), (64, 32), (256, 256)])
def test_halves_equal_area_for_powers_of_two(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).random((256, 256, 3), np.float32)
    (height, width), step = size, (256 // size[0], 256 // size[1])
    means = image.reshape(height, step[0], width, step[1], 3).mean(axis=(1, 3))
    np.testing.assert_allclose(resize(image, size, "halves-area"), means, atol=1e-6)


@pytest.mark.parametrize(("side", "halved"), [(1024, 512), (1500, 750), (2049, 513), (4500, 563)])
def test_halves_area_halves_sides_four_times_as_long(side: int, halved: int) -> None:
    image = np.random.default_rng(0).random((side, 300), np.float32)
    even = image
    while len(even) > halved:
        even = np.concatenate([even, even[-1:]]) if len(even) % 2 else even
        even = ((even[::2] + even[1::2]) / 2).astype(np.float32)
    assert len(even) == halved
    np.testing.assert_allclose(
        resize(image, (256, 256), "halves-area"), resize(even, (256, 256), "area"), atol=1e-6
    )


def test_growing_interpolates() -> None:
    image = np.array([[0, 100]], np.uint8)
    np.testing.assert_array_equal(resize(image, (1, 4)), [[0, 25, 75, 100]])


MIXED = [(1000, 250), (250, 1000), (257, 255), (2100, 100), (3, 900)]


class TestOneSideGrows:
    @pytest.mark.parametrize("shape", MIXED)
    def test_no_row_and_no_column_is_stepped_over(self, shape: tuple[int, int]) -> None:
        for axis, side in enumerate(shape):
            if side <= 256:
                continue
            for at in range(0, side, 7):
                lines = np.zeros(shape, np.float32)
                lines[(slice(None),) * axis + (at,)] = 255
                seen = resize(lines, (256, 256), "halves-area").sum() / (256 * 255)
                assert seen > 0.5 * 256 / side, (axis, at)

    @pytest.mark.parametrize("shape", MIXED)
    def test_shrinking_side_is_averaged_before_growing_side(self, shape: tuple[int, int]) -> None:
        image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
        shorter = resize(image, (min(shape[0], 256), min(shape[1], 256)))
        np.testing.assert_array_equal(resize(image, (256, 256)), resize(shorter, (256, 256)))


@pytest.mark.parametrize("size", [(1, 1), (HEIGHT, WIDTH), (HEIGHT, 10), (100, 200)])
def test_size_is_height_then_width(size: tuple[int, int]) -> None:
    image = resize(RGB, size)
    assert image.shape == (*size, 3)
    assert image.dtype == np.uint8
