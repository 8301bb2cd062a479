"""Digits and folders as data: integers in three fixed, disjoint splits."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from flows.fastflow.imaging.image_errors import ImageError
from training.density.image_data import ImageSplits, digits, folder


def fill(path: Path, count: int, size: tuple[int, int] = (20, 30), *, colours: int = 3) -> None:
    path.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        pixels = rng.integers(0, 256, (*size, colours), dtype=np.uint8)
        cv2.imwrite(str(path / f"{number:03}.png"), pixels)


def parts(data: ImageSplits) -> list[torch.Tensor]:
    return [data.train, data.validation, data.test]


def test_digits_are_integers_in_a_fixed_and_stratified_split() -> None:
    data, again = digits(), digits()
    values = torch.cat(parts(data))
    assert (data.shape, data.levels, values.dtype) == ((1, 8, 8), 17, torch.float32)
    assert sorted(set(values.flatten().tolist())) == list(range(17))
    # Which digits are in the test decides every figure that was ever printed.
    assert [len(part) for part in parts(data)] == [1198, 299, 300]
    assert torch.equal(data.test, again.test)


@pytest.mark.parametrize("channels", [1, 3])
def test_folder_is_resized_and_divided(tmp_path: Path, channels: int) -> None:
    fill(tmp_path, 30)
    (tmp_path / "._000.png").write_bytes(b"an operating system's note")
    (tmp_path / "readme.txt").write_text("no image")
    data = folder(tmp_path, 8, channels)
    assert data.shape == (channels, 8, 8)
    assert data.levels == 256
    assert [len(part) for part in parts(data)] == [20, 5, 5]
    values = torch.cat(parts(data))
    assert torch.equal(values, values.round())
    assert values.min() >= 0
    assert values.max() <= 255
    again = folder(tmp_path, 8, channels)
    assert all(torch.equal(a, b) for a, b in zip(parts(data), parts(again), strict=True))


def test_copies_are_taken_once(tmp_path: Path) -> None:
    fill(tmp_path, 12)
    for number in range(12):
        (tmp_path / f"copy{number}.png").write_bytes((tmp_path / f"{number:03}.png").read_bytes())
    assert sum(len(part) for part in parts(folder(tmp_path, 8))) == 12


def test_broken_image_is_named(tmp_path: Path) -> None:
    fill(tmp_path, 8)
    (tmp_path / "004.png").write_bytes((tmp_path / "004.png").read_bytes()[:200])
    with pytest.raises(ImageError, match=r"004\.png"):
        folder(tmp_path, 8)
