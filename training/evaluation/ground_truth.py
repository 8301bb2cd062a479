"""Ground truth at the size of a map, read from masks."""

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.masks import read_mask
from training.data.sample import Sample


def read_ground_truth(
    sample: Sample, image_size: tuple[int, int], size: tuple[int, int]
) -> NDArray[np.bool_]:
    """Read the defective pixels of a sample, at the size of a map.

    All pixels are False if one of the sample's kinds of defect has no mask.

    Args:
        image_size: (height, width) of the image and of its masks.

    Raises:
        ImageError, DatasetError: a mask cannot be read or has another size; it is named.
    """
    kinds = [
        np.logical_or.reduce([read_mask(mask, image_size) for mask in masks])
        for masks in sample.masks.values()
    ]
    if not all(map(np.any, kinds)):
        return np.zeros(size, dtype=np.bool_)
    return downscale_mask(np.logical_or.reduce(kinds), size)


def downscale_mask(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Downscale a mask by nearest neighbour, but keep every defect whole.

    An 8-connected defect that would vanish, fall apart or keep less than half its extent (the longer side of
    its box) takes every pixel it touches instead. Otherwise a thin scratch would vanish, or become several
    small defects that each count in AUPRO.

    Args:
        mask: (H, W) bool.
    """
    height, width = size
    defects, labels, boxes, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    small = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
    truth = small > 0
    count, parts = cv2.connectedComponents(truth.astype(np.uint8), connectivity=8)
    # Pairs of a defect and a connected part of the truth that overlap.
    pairs = np.unique(small[truth].astype(np.int64) * count + parts[truth])
    in_one_part = np.bincount(pairs // count, minlength=defects) == 1
    scale = np.array([width, height]) / mask.shape[::-1]
    extent = (boxes[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]] * scale).max(axis=1)
    lost = ~in_one_part | (2 * np.bincount(small.ravel(), minlength=defects) < extent)
    lost[0] = False  # the background
    y, x = np.nonzero(lost[labels])
    for rows in _covered(y, mask.shape[0], height):
        for columns in _covered(x, mask.shape[1], width):
            truth[rows, columns] = True
    return truth


def _covered(i: NDArray[np.intp], old: int, new: int) -> list[NDArray[np.intp]]:
    """Map pixels i of `old` ones to the `new` pixels they cover, as arrays of indices."""
    last = -(-(i + 1) * new // old) - 1
    return [np.minimum(i * new // old + k, last) for k in range(-(-new // old))]
