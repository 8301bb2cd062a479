"""AUPIMO: how much of each defect is seen where hardly any pixel of a good part is (arXiv 2401.01984)."""

import math

import numpy as np
from numpy.typing import NDArray

from training.metrics.errors import MetricError
from training.metrics.sorted_runs import SortedRuns, descending

FPR_BOUNDS = (1e-5, 1e-4)
_ROUNDING = 1e-9  # of sums of shares


def aupimo(
    good: SortedRuns,
    good_sizes: NDArray[np.int64],
    defective: SortedRuns,
    bounds: tuple[float, float] = FPR_BOUNDS,
) -> NDArray[np.float64]:
    """Area under the per-image overlap curve of every defective picture.

    The overlap of a picture is the share of its defective pixels at or above a threshold; the shared
    false-positive rate of that threshold is the mean over good pictures of the share of their pixels at or
    above it. The area is taken over the logarithm of the rate and divided by log(U / L) (Bertoldo et al.,
    section 4). Every distinct score of a good pixel is a threshold. As in the authors' own implementation
    the ends are the rates nearest to L and U that some threshold has.

    Args:
        good: all pixels of good pictures, a run for each.
        good_sizes: (runs,) the pixels of each.
        defective: the defective pixels of defective pictures, a run for each.
        bounds: L and U.

    Returns:
        (runs of `defective`,), in 0 ... 1.

    Raises:
        MetricError: there are no good or no defective pictures, or too few good pixels for rates
            up to L, or too many of them have the highest score.
    """
    low, high = bounds
    if not (len(good) and len(defective)):
        raise MetricError("AUPIMO needs good pictures, and defective ones with a mask")
    values, rates = _shared_rates(good, good_sizes, high)
    first, last = (int(np.argmin(np.abs(rates - bound))) for bound in bounds)
    # An end above L by itself would take what lies below it from every map, however good.
    if rates[1:2].size == 0 or rates[1] > low * (1 + _ROUNDING) or first == last:
        why = f"{int(good_sizes.sum()):,} pixels in {len(good)} good pictures are too few to tell them apart"
        if rates[1:2].size and low * len(good) * good_sizes.min() >= 1:
            why = f"{rates[1]:.2g} of them have the highest score"
        raise MetricError(
            f"AUPIMO looks at false-positive rates of {low:g} to {high:g} of the pixels of good pictures; "
            f"{why}"
        )
    # From rates[k] to rates[k + 1] the rate grows at the score values[k].
    values = values[first:last]
    width = np.diff(np.log(rates[first : last + 1]))
    areas = np.empty(len(defective))
    for run in range(len(defective)):
        scores, counts = defective.values(run), defective.counts(run)
        above = np.append(np.cumsum(counts[::-1])[::-1], 0) / counts.sum()
        at_or_above = above[np.searchsorted(scores, values, side="left")]
        strictly = above[np.searchsorted(scores, values, side="right")]
        areas[run] = width @ (at_or_above + strictly) / 2
    clipped: NDArray[np.float64] = np.clip(areas / math.log(high / low), 0, 1)
    return clipped


def _shared_rates(
    good: SortedRuns, sizes: NDArray[np.int64], high: float
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Falling scores of good pixels (k,) to the first above `high`; rates before and at each (k + 1,)."""
    values: list[NDArray[np.float32]] = []
    steps: list[NDArray[np.float64]] = []
    reached = 0.0
    for [entries] in descending([good]):
        distinct, inverse = np.unique(entries.values, return_inverse=True)
        share = np.bincount(inverse, entries.counts / sizes[entries.runs], len(distinct)) / len(sizes)
        values.append(distinct[::-1])
        steps.append(share[::-1])
        reached += share.sum()
        if reached > high:
            break
    rates = np.cumsum(np.concatenate([[0.0], *steps]))
    end = int(np.searchsorted(rates, high, side="right"))
    return np.concatenate(values)[:end], rates[: end + 1]
