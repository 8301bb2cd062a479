"""AUPIMO: the per-image overlap at very low false-positive rates (arXiv 2401.01984)."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FPR_BOUNDS = (1e-5, 1e-4)
_ROUNDING = 1e-9  # tolerance for sums of shares
_MAX_SCORES = 2**14  # kept per image


def kept_scores(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sort the scores (n,) of an image's defective pixels; reduce more than 2^14 to quantiles."""
    # The quantiles change a share by at most 1 / 2^15.
    ordered = np.sort(scores)
    if len(ordered) <= _MAX_SCORES:
        return ordered
    return ordered[((np.arange(_MAX_SCORES) + 0.5) * len(ordered) / _MAX_SCORES).astype(np.int64)]


def aupimo(
    thresholds: tuple[NDArray[np.float32], NDArray[np.float32]],
    shares: NDArray[np.float64],
    defective: Sequence[NDArray[np.float32]],
    bounds: tuple[float, float] = FPR_BOUNDS,
) -> NDArray[np.float64] | None:
    """Compute the area under the per-image overlap curve of every defective image.

    The overlap of an image is the share of its defective pixels at or above a threshold; the shared
    false-positive rate of that threshold is the mean over good images of the share of their pixels at or
    above it. The area is taken over the logarithm of the rate and divided by log(U / L) (Bertoldo et al.,
    section 4). As in the authors' implementation, the ends are the rates nearest to L and U that a
    threshold has.

    Args:
        thresholds: of each bin of scores of good pixels, highest first, the lowest score, (b,), and the
            lowest above it, (b,).
        shares: (b,) mean over good images of the share of their pixels in each bin.
        defective: sorted scores of each defective image's defective pixels, from `kept_scores`.
        bounds: L and U.

    Returns:
        (images,), in 0 ... 1; None without good or defective images, with too few good pixels for rates
        up to L, or with too many good pixels at the highest score.
    """
    low, high = bounds
    if not (len(shares) and len(defective)):
        return None
    rates = np.append(0.0, np.cumsum(shares))
    first, last = (int(np.argmin(np.abs(rates - bound))) for bound in bounds)
    # A lower end above L would cut the area of every map, however good.
    if rates[1] > low * (1 + _ROUNDING) or first == last:
        return None
    # From rates[k] to rates[k + 1] the rate grows within bin k.
    lowest, above = (scores[first:last] for scores in thresholds)
    width = np.diff(np.log(rates[first : last + 1]))
    areas = np.empty(len(defective))
    for i, scores in enumerate(defective):
        at_or_above, strictly = (1 - np.searchsorted(scores, x) / len(scores) for x in (lowest, above))
        areas[i] = width @ (at_or_above + strictly) / 2
    clipped: NDArray[np.float64] = np.clip(areas / math.log(high / low), 0, 1)
    return clipped
