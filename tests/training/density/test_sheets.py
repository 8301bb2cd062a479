"""Sheets of images: positions of pixels."""

from io import BytesIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from training.density.sheets import GAP, sheet, sheet_size, to_pixels


def decoded(data: bytes) -> NDArray[np.uint8]:
    with Image.open(BytesIO(data)) as image:
        return np.asarray(image)


def test_levels_become_all_of_the_grey_scale() -> None:
    x = torch.tensor([0.0, 8.0, 16.0]).view(3, 1, 1, 1)
    assert to_pixels(x, 17).flatten().tolist() == [0, 128, 255]
    assert to_pixels(torch.arange(256.0).view(1, 1, 16, 16), 256).flatten().tolist() == list(range(256))


def test_images_stand_in_rows_at_their_places() -> None:
    x = torch.randint(256, (5, 3, 60, 50)).float()
    found = decoded(sheet(x, 256, columns=3))
    assert found.shape[:2][::-1] == sheet_size(5, 60, 50, 3)
    for i in range(5):
        top, left = GAP + i // 3 * (60 + GAP), GAP + i % 3 * (50 + GAP)
        part = found[top : top + 60, left : left + 50]
        assert np.array_equal(part, x[i].permute(1, 2, 0).numpy())
    assert (found[GAP + 60 + GAP :, GAP + 2 * (50 + GAP) :] == 128).all()  # where a sixth would be


def test_small_images_are_enlarged_pixel_by_pixel() -> None:
    x = torch.randint(17, (1, 1, 8, 8)).float()
    found = decoded(sheet(x, 17))
    assert found.shape == (48 + 2 * GAP, 48 + 2 * GAP)
    assert np.array_equal(found[GAP + 3 : -GAP : 6, GAP + 3 : -GAP : 6], to_pixels(x, 17)[0, ..., 0])
