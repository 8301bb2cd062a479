"""Whether a review band can hold anything: its two thresholds are ranks among the calibration's scores."""

import math

from flows.fastflow.conformal import rank


def pictures_for_band(target_fpr: float, review_fpr: float) -> int:
    """From how many calibration pictures on the thresholds of two rates are never the same score.

    With n of them the thresholds are the scores of rank max(1, floor(alpha (n + 1))), see
    `flows.fastflow.conformal`. The larger rate must have left the first rank, n + 1 >= 2 / review_fpr, and a
    whole rank lies between the two for sure where n + 1 >= 1 / (review_fpr - target_fpr).

    Args:
        target_fpr: of rejected good parts.
        review_fpr: of good parts rejected or reviewed, more than that.
    """
    return math.ceil(max(2 / review_fpr, 1 / (review_fpr - target_fpr)) * (1 - 1e-12)) - 1


def say_empty_band(pictures: int, target_fpr: float, review_fpr: float | None) -> str | None:
    """A line about a review band that is asked for and holds no score; None of others, and without a band.

    Args:
        pictures: those that calibrate.
        target_fpr, review_fpr: see `pictures_for_band`; None for no band.

    Raises:
        ValueError: a rate that is not in (0, 1).
    """
    if review_fpr is None or review_fpr <= target_fpr:
        return None
    low, high = (max(1, rank(pictures, rate)) for rate in (target_fpr, review_fpr))
    if low < high:
        return None
    return (
        f"the review band is empty: {pictures} pictures to calibrate with do not tell {target_fpr:.2%} and "
        f"{review_fpr:.2%} apart, so nothing goes to a person; it takes "
        f"{pictures_for_band(target_fpr, review_fpr)}"
    )
