"""Tiles for the fit, and the split by images."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from flows.fastflow.config import Geometry
from tests.training.pins import pins
from training.data.pinned_images import PinnedImage
from training.data.tiles import Tile, choose_tiles

SIZE, STRIDES = (64, 64), (8, 16)
TILE = Geometry(fit="tile")


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Three images: of one tile, of four, and of nine."""
    made = []
    for i, side in enumerate((64, 100, 160)):
        made.append(tmp_path / f"{i}.png")
        noise = np.random.default_rng(i).integers(0, 256, (side, side, 3), dtype=np.uint8)
        cv2.imwrite(str(made[-1]), noise)
    return made


def test_untiled_image_is_one_row_and_not_read() -> None:
    missing = [PinnedImage(Path("a.png"), ""), PinnedImage(Path("b.png"), "")]
    for geometry in (Geometry(), Geometry(fit="pad")):
        assert choose_tiles(missing, geometry, SIZE, STRIDES, 16) == [Tile(0, 0), Tile(1, 0)]


def test_all_tiles_are_taken_where_they_are_few(paths: list[Path]) -> None:
    tiles = choose_tiles(pins(paths), TILE, SIZE, STRIDES, 16)
    assert tiles == [Tile(0, 0), *(Tile(1, i) for i in range(4)), *(Tile(2, i) for i in range(9))]


def test_many_tiles_are_sampled_differently_per_image(paths: list[Path]) -> None:
    same = pins([paths[2]]) * 30
    tiles = choose_tiles(same, TILE, SIZE, STRIDES, 3)
    assert len(tiles) == len(set(tiles)) == 90
    assert all(0 <= tile.number < 9 for tile in tiles)
    counts = np.bincount([tile.number for tile in tiles], minlength=9)
    assert counts.min() >= 7  # of ten, were it perfectly even
    by_image = [{t.number for t in tiles if t.image == i} for i in range(30)]
    assert all(max(numbers) - min(numbers) >= 6 for numbers in by_image)  # over the whole image
    assert choose_tiles(same, TILE, SIZE, STRIDES, 3) == tiles
