"""Scores and maps of a test set against the truth, whatever model they are from."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.masks import read_mask
from training.data.sample import Sample
from training.evaluation.metrics.images import F1Max, image_auroc, image_average_precision, image_f1_max
from training.evaluation.metrics.pixels import PixelFigures, PixelMetrics


@dataclass(frozen=True)
class RankingFigures:
    """How well scores and maps tell good parts from defective ones.

    Attributes:
        image_auroc, image_average_precision, image_f1_max: on raw scores; None where the images are all
            good or all defective.
        pixels: on raw map values at the map's size; None where no defect has a mask, or no pixel is good.
        masked: defective images that have a mask; the pixels of the others are not counted.
    """

    image_auroc: float | None
    image_average_precision: float | None
    image_f1_max: F1Max | None
    pixels: PixelFigures | None
    masked: int


class RankingMetrics:
    """Takes scores and maps image by image, holds no map, and measures them.

    Pixels count where they are known: those of good parts, and of defects that have a mask with something in
    it, for each kind that the image is in.
    """

    def __init__(self) -> None:
        self._defective: list[bool] = []
        self._scores: list[float] = []
        self._masked = 0
        self._good_pixels = False  # whether any was added
        self._pixels = PixelMetrics()

    def add(
        self, sample: Sample, image_size: tuple[int, int], score: float, score_map: NDArray[np.float32]
    ) -> None:
        """Add an image of (height, width) with its score and map.

        Raises:
            ImageError, DatasetError: the mask cannot be read or does not fit; it is named.
        """
        self._defective.append(sample.defect is not None)
        self._scores.append(score)
        mask = read_ground_truth(sample, image_size, (score_map.shape[0], score_map.shape[1]))
        if sample.defect is None or mask.any():
            self._masked += bool(mask.any())
            self._good_pixels |= not mask.all()
            self._pixels.update(score_map, mask)

    def figures(self) -> RankingFigures:
        """Measure what was added."""
        truth, scores = self._defective, self._scores
        both = len(set(truth)) == 2
        return RankingFigures(
            image_auroc=image_auroc(truth, scores) if both else None,
            image_average_precision=image_average_precision(truth, scores) if both else None,
            image_f1_max=image_f1_max(truth, scores) if both else None,
            pixels=self._pixels.compute() if self._masked and self._good_pixels else None,
            masked=self._masked,
        )


def read_ground_truth(
    sample: Sample, image_size: tuple[int, int], size: tuple[int, int]
) -> NDArray[np.bool_]:
    """Where a sample is defective, at a map's size: all False where no mask says so of one of its kinds.

    Args:
        sample: a test image.
        image_size: its (height, width), which masks must have.
        size: (height, width) of what is returned.

    Raises:
        ImageError, DatasetError: a mask cannot be read or does not fit; it is named.
    """
    kinds = [
        np.logical_or.reduce([read_mask(mask, image_size) for mask in masks])
        for masks in sample.masks.values()
    ]
    if not all(map(np.any, kinds)):
        return np.zeros(size, dtype=np.bool_)
    return downscale_mask(np.logical_or.reduce(kinds), size)


def downscale_mask(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask at a map's size, by nearest neighbour as others do it; but no defect vanishes or falls apart.

    A defect, 8-connected, that would do so, or of which less would be left than half its extent, the longer
    side of its box, takes every pixel it lies on instead. Otherwise a scratch narrower than a pixel were no
    defect, or a dot somewhere on it, or many small ones, each of which counts in AUPRO.

    Args:
        mask: (H, W) bool.
        size: (height, width) of what is returned.
    """
    height, width = size
    defects, labels, boxes, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    small = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
    truth = small > 0
    count, parts = cv2.connectedComponents(truth.astype(np.uint8), connectivity=8)
    # Each defect with each connected part of the truth that it has something in.
    pairs = np.unique(small[truth].astype(np.int64) * count + parts[truth])
    in_one_part = np.bincount(pairs // count, minlength=defects) == 1
    scale = np.array([width, height]) / mask.shape[::-1]
    extent = (boxes[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]] * scale).max(axis=1)
    lost = ~in_one_part | (2 * np.bincount(small.ravel(), minlength=defects) < extent)
    lost[0] = False  # What is not defective.
    y, x = np.nonzero(lost[labels])
    for rows in _covered(y, mask.shape[0], height):
        for columns in _covered(x, mask.shape[1], width):
            truth[rows, columns] = True
    return truth


def _covered(i: NDArray[np.intp], old: int, new: int) -> list[NDArray[np.intp]]:
    """Of `new` pixels those in which pixels i of `old` ones begin; where they are smaller, those after it."""
    last = -(-(i + 1) * new // old) - 1
    return [np.minimum(i * new // old + k, last) for k in range(-(-new // old))]
