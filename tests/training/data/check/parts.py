"""A synthetic category for the data check: coloured brushed discs with individual marks."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

SIZE = 96


def part(seed: int) -> NDArray[np.uint8]:
    """A (96, 96, 3) RGB image of a good part; no two look the same."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    disc = (np.hypot(x - 48, y - 48) < 40).astype(np.float32)
    brushed = cv2.GaussianBlur(rng.normal(0, 1, (SIZE, SIZE)).astype(np.float32), (0, 0), 3)
    grey = 60 + 90 * cv2.GaussianBlur(disc, (5, 5), 1) + 90 * brushed + rng.normal(0, 2, (SIZE, SIZE))
    return np.stack([grey, 0.9 * grey, 0.7 * grey], 2).clip(0, 255).astype(np.uint8)


def write(path: Path, image: NDArray[np.uint8], *options: int) -> Path:
    """Encode an RGB or grey image as its suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = image if image.ndim == 2 else np.ascontiguousarray(image[..., ::-1])
    assert cv2.imwrite(str(path), pixels, options)
    return path


def category(root: Path, *, train: int = 30, good: int = 4, defective: int = 0) -> Path:
    """A category "disc" in MVTec layout with nothing wrong with it; returns its folder."""
    folder = root / "disc"
    for i in range(train):
        write(folder / f"train/good/{i:03}.png", part(i))
    for i in range(good):
        write(folder / f"test/good/{i:03}.png", part(1000 + i))
    for i in range(defective):
        image = part(2000 + i)
        image[40:50, 20:70] = 255
        mask = np.zeros((SIZE, SIZE), np.uint8)
        mask[40:50, 20:70] = 255
        write(folder / f"test/scratch/{i:03}.png", image)
        write(folder / f"ground_truth/scratch/{i:03}_mask.png", mask)
    return folder
