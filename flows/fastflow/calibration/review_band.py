"""Whether a review band can hold anything: its two thresholds are ranks among the calibration's scores."""

import math

from flows.fastflow.calibration.conformal import threshold_rank


def _is_empty(pictures: int, target_fpr: float, review_fpr: float) -> bool:
    low, high = (max(1, threshold_rank(pictures, rate)) for rate in (target_fpr, review_fpr))
    return low == high


def min_images_for_band(target_fpr: float, review_fpr: float) -> int:
    """From how many calibration pictures on the thresholds of two rates are never the same score.

    With n of them the thresholds are the scores of rank max(1, floor(alpha (n + 1))), see
    `flows.fastflow.calibration.conformal`. Both ranks are k > 1 where
    k / target_fpr <= n + 1 < (k + 1) / review_fpr, and such n + 1 there are only for
    k < target_fpr / (review_fpr - target_fpr).

    Args:
        target_fpr: of rejected good parts.
        review_fpr: of good parts rejected or reviewed, more than that.
    """
    most = max(2, math.ceil(target_fpr / (review_fpr - target_fpr))) / review_fpr
    pictures = math.ceil(most)
    # Not every such interval has a whole number in it.
    while pictures > 1 and not _is_empty(pictures - 1, target_fpr, review_fpr):
        pictures -= 1
    return pictures


def describe_empty_band(pictures: int, target_fpr: float, review_fpr: float | None) -> str | None:
    """A line about a review band that is asked for and holds no score; None of others, and without a band.

    Args:
        pictures: those that calibrate.
        target_fpr, review_fpr: see `min_images_for_band`; None for no band.

    Raises:
        ValueError: a rate that is not in (0, 1).
    """
    if review_fpr is None or review_fpr <= target_fpr or not _is_empty(pictures, target_fpr, review_fpr):
        return None
    return (
        f"the review band is empty: {pictures} pictures to calibrate with do not tell {target_fpr:.2%} and "
        f"{review_fpr:.2%} apart, so nothing goes to a person; it takes "
        f"{min_images_for_band(target_fpr, review_fpr)}"
    )
