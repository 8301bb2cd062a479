"""Masks as pixels: numbers, shades, folders, and wrong sizes."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from training.data.masks import ignored_share, read_mask
from training.data.sample import DatasetError

SIZE = (6, 8)


def draw(path: Path, *values: int) -> Path:
    """A mask of SIZE: its first pixels have these values, the others are black."""
    mask = np.zeros(SIZE, dtype=np.uint8)
    mask.ravel()[: len(values)] = values
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), mask)
    return path


@pytest.mark.parametrize(
    ("values", "defective"),
    [
        ((255, 255), 2),
        ((1, 1, 1), 3),
        ((1, 2, 9), 3),  # VisA: kinds of defects, all of them defects
        ((255, 250, 241), 3),  # MVTec LOCO AD: kinds again, counted down from white
        ((255, 200, 90, 3), 2),  # edges that were smoothed
        ((), 0),
    ],
)
def test_numbers_and_shades(tmp_path: Path, values: tuple[int, ...], defective: int) -> None:
    mask = read_mask(draw(tmp_path / "0.png", *values), SIZE)
    assert mask.shape == SIZE
    assert mask.dtype == np.bool_
    assert mask.ravel()[:defective].all()
    assert mask.sum() == defective


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("mark", [1, 3, 255, 4095, 65535])
def test_marks_of_16_bits_count_whatever_their_value(tmp_path: Path, mark: int, suffix: str) -> None:
    samples = np.zeros((8, 9), np.uint16)
    samples[2:6, 3:8] = mark
    assert cv2.imwrite(str(path := tmp_path / f"mask{suffix}"), samples)
    assert read_mask(path, (8, 9)).tolist() == (samples > 0).tolist()
    assert ignored_share(path) == 0


def test_the_masks_in_a_folder_are_united(tmp_path: Path) -> None:
    draw(tmp_path / "0/000.png", 255)
    draw(tmp_path / "0/001.png", 0, 1)
    assert read_mask(tmp_path / "0", SIZE).ravel().tolist() == [True, True] + [False] * 46


@pytest.mark.parametrize("in_a_folder", [False, True])
def test_another_size_is_told_with_both(tmp_path: Path, in_a_folder: bool) -> None:
    path = draw(tmp_path / "0/000.png", 255)
    with pytest.raises(DatasetError, match=r"000\.png has size 8x6, its image 6x8"):
        read_mask(path.parent if in_a_folder else path, (8, 6))
