"""Random maps and masks, and plain reference implementations of pixel metrics."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from training.evaluation.metrics.pixel_metrics import PixelFigures, PixelMetrics

Maps = list[NDArray[np.float32]]
Masks = list[NDArray[np.bool_]]


def made_up(
    seed: int, *, images: int = 8, size: int = 48, decimals: int | None = None, tail: float = 0.0
) -> tuple[Maps, Masks]:
    """Maps of noise that is higher on rectangles; every second image is good.

    Rounded to some decimals many scores are equal; with a tail, exp(tail * noise), a few are far out.
    """
    rng = np.random.default_rng(seed)
    maps, masks = [], []
    for i in range(images):
        mask = np.zeros((size, size), dtype=np.bool_)
        for _ in range(3 * (i % 2)):
            y, x = rng.integers(0, size - 4, 2)
            height, width = rng.integers(1, size // 4, 2)
            mask[y : y + height, x : x + width] = True
        scores = rng.normal(size=(size, size)) + rng.uniform(0, 3) * mask
        if tail:
            scores = np.exp(tail * scores)
        if decimals is not None:
            scores = np.round(scores, decimals)
        maps.append(scores.astype(np.float32))
        masks.append(mask)
    return maps, masks


def pixel_figures(maps: Maps, masks: Masks) -> PixelFigures:
    metrics = PixelMetrics()
    for score_map, mask in zip(maps, masks, strict=True):
        metrics.update(score_map, mask)
    return metrics.compute()


def share(
    scores: NDArray[np.float32], thresholds: NDArray[np.float32], side: str = "left"
) -> NDArray[np.float64]:
    """Of the scores the share at or above each threshold; with side "right", above it."""
    below = np.searchsorted(
        np.sort(scores, axis=None), thresholds, side="right" if side == "right" else "left"
    )
    return 1 - below / scores.size


def plain_aupro(maps: Maps, masks: Masks, limit: float) -> float:
    """Per-region overlap at every distinct score."""
    good = np.concatenate([m[~k] for m, k in zip(maps, masks, strict=True)])
    regions = []
    for score_map, mask in zip(maps, masks, strict=True):
        count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        regions += [score_map[labels == label] for label in range(1, count)]
    thresholds = np.unique(np.stack(maps))[::-1]
    x = [0.0, *share(good, thresholds)]
    y = [0.0, *np.mean([share(region, thresholds) for region in regions], axis=0)]
    area = 0.0
    for x0, x1, y0, y1 in zip(x, x[1:], y, y[1:], strict=False):
        if x0 < limit < x1:
            x1, y1 = limit, y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
        if x1 <= limit:
            area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


def plain_aupimo(maps: Maps, masks: Masks, low: float, high: float) -> list[float]:
    """Overlap of each image over the logarithm of the shared rate, at every distinct good score."""
    good = [m for m, k in zip(maps, masks, strict=True) if not k.any()]
    thresholds = np.unique(np.stack(good))[::-1]
    rates = np.array([0.0, *np.mean([share(m, thresholds) for m in good], axis=0)])
    first, last = (int(np.argmin(np.abs(rates - bound))) for bound in (low, high))
    found = []
    for score_map, mask in zip(maps, masks, strict=True):
        if mask.any():
            defect = score_map[mask]
            overlap = (share(defect, thresholds) + share(defect, thresholds, "right")) / 2
            steps = [overlap[k] * math.log(rates[k + 1] / rates[k]) for k in range(first, last)]
            found.append(sum(steps) / math.log(high / low))
    return found
