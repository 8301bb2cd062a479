"""Near-duplicates: copies saved again, and several photographs of one part.

Good parts look alike, so no fixed distance separates a copy from a neighbour. A pair counts if it is much
closer than usual: at most 0.15 of each image's distance to its k-th nearest neighbour, k being a twentieth
of all images. Distances are root mean squares between thumbnails without their mean and
spread, so that a brighter copy is a copy.

On the development set the closest pairs of bottles and of grids are at 0.27 and 0.28. Their copies as JPEG
of quality 50, at half the size, with noise, or (grids) brighter by a tenth, are at 0.10 and less. The pairs
found among magnetic tiles and solar cells show one tile under another light, or cells that look the same at
a glance.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LIMIT = 0.15
_K_SHARE, _MIN_K = 1 / 20, 5
_MAX_PAIRS = 16  # of one image
_ROWS, _COLUMNS = 512, 2048


@dataclass(frozen=True)
class NeighbourDistances:
    """Distances between training images.

    Attributes:
        fifth: (N,) distance to the fifth nearest image of another part, or to the furthest of fewer.
        usual: (N,) distance to the k-th nearest image, the scale of the ratios.
        pairs: (i, j, ratio) with i < j, closer than `LIMIT` times the usual distance of both. Equal images
            are paired only with the first of them that shows another part. Of more than 16 partners j, i
            keeps the next one and the 16 closest.
    """

    fifth: NDArray[np.float32]
    usual: NDArray[np.float32]
    pairs: list[tuple[int, int, float]]


def neighbours(thumbnails: NDArray[np.uint8], parts: NDArray[np.int64] | None = None) -> NeighbourDistances:
    """Compute the distances between training images of different parts.

    Args:
        thumbnails: (N, H, W) lightness, N at least 2. Memory holds 512 rows of distances.
        parts: (N,) part numbers, at least 2 different ones; None if each image shows another part.
    """
    parts = np.arange(len(thumbnails)) if parts is None else parts
    count, others = len(thumbnails), count_others(parts)
    fifth, k = min(5, others), min(max(_MIN_K, math.ceil(_K_SHARE * count)), others)
    reach = max(k, fifth)
    ordered = np.empty((count, 2), dtype=np.float32)
    candidates: list[tuple[int, int, float]] = []
    equal: set[tuple[int, int]] = set()
    for start in range(0, count, _ROWS):
        own = np.arange(start, min(start + _ROWS, count))
        rows = _distances(thumbnails[own], thumbnails)
        # An image is no neighbour of itself or of its own part.
        rows[parts[own, None] == parts] = np.inf
        nearest = np.sort(np.partition(rows, reach - 1, axis=1)[:, :reach], axis=1)
        ordered[own, 0], ordered[own, 1] = nearest[:, fifth - 1], nearest[:, k - 1]
        same = rows == 0
        # A frozen camera gives thousands of equal images, and so millions of pairs.
        twins = np.flatnonzero(same.any(1))
        first = same[twins].argmax(1)
        equal |= {(min(i, j), max(i, j)) for i, j in zip(own[twins].tolist(), first.tolist(), strict=True)}
        close = (rows <= LIMIT * ordered[own, 1:]) & ~same & (own[:, None] < np.arange(count))
        for row in np.flatnonzero(close.any(1)).tolist():
            kept = _limit_pairs(np.flatnonzero(close[row]), rows[row]).tolist()
            candidates += [(start + row, column, float(rows[row, column])) for column in kept]
    usual = ordered[:, 1]
    pairs = [(i, j, 0.0) for i, j in sorted(equal)]
    for i, j, distance in candidates:
        scale = float(min(usual[i], usual[j]))
        if distance <= LIMIT * scale:
            pairs.append((i, j, distance / scale if scale else 0.0))
    return NeighbourDistances(fifth=ordered[:, 0], usual=usual, pairs=pairs)


def count_others(parts: NDArray[np.int64]) -> int:
    """Count the images of other parts, for the image with the fewest."""
    return len(parts) - int(np.bincount(parts).max())


def nearest_in_training(
    test: NDArray[np.uint8], train: NDArray[np.uint8], usual: NDArray[np.float32]
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Find the closest training image of each test image.

    Args:
        test: (M, H, W) lightness.
        train: (N, H, W) lightness.
        usual: (N,) usual distance of each training image.

    Returns:
        (M,) rows of `train`, and (M,) ratios of the distance to the usual one: at most `LIMIT` for
        near-duplicates.
    """
    index, ratio = np.empty(len(test), dtype=np.intp), np.empty(len(test), dtype=np.float32)
    for start in range(0, len(test), _ROWS):
        rows = _distances(test[start : start + _ROWS], train)
        ratios = np.divide(rows, usual, out=np.where(rows > 0, np.inf, 0).astype(np.float32), where=usual > 0)
        index[start : start + len(rows)] = best = ratios.argmin(1)
        ratio[start : start + len(rows)] = ratios[np.arange(len(rows)), best]
    return index, ratio


def _limit_pairs(close: NDArray[np.intp], distances: NDArray[np.float32]) -> NDArray[np.intp]:
    """Reduce many close images to the first, which links them all, and the closest.

    A part photographed thousands of times would give millions of pairs.
    """
    if len(close) <= _MAX_PAIRS:
        return close
    closest = close[np.argpartition(distances[close], _MAX_PAIRS)[:_MAX_PAIRS]]
    return np.union1d(close[:1], closest)


def _distances(rows: NDArray[np.uint8], columns: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Compute root mean squared differences (R, C) of standardised thumbnails."""
    left = _standardised(rows)
    squares = np.empty((len(rows), len(columns)), dtype=np.float32)
    for start in range(0, len(columns), _COLUMNS):
        right = _standardised(columns[start : start + _COLUMNS])
        # |a - b|^2 = |a|^2 + |b|^2 - 2 ab
        block = (left**2).sum(1)[:, None] + (right**2).sum(1) - 2 * (left @ right.T)
        squares[:, start : start + len(right)] = block
    # For equal thumbnails, rounding leaves a difference of either sign.
    return np.asarray(np.sqrt(np.maximum(squares / left.shape[1] - 1e-6, 0)), dtype=np.float32)


def _standardised(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    flat -= flat.mean(1, keepdims=True)
    # Two grey levels of noise: a blank image is not stretched to full contrast.
    return np.asarray(flat / (flat.std(1, keepdims=True) + 2), dtype=np.float32)
