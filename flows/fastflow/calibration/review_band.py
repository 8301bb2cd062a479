"""Number of calibration images that a review band needs to hold any score."""

import math

from flows.fastflow.calibration.conformal import usable_rank


def _is_empty(images: int, target_fpr: float, review_fpr: float) -> bool:
    low, high = (usable_rank(images, rate) for rate in (target_fpr, review_fpr))
    return low == high


def min_images_for_band(target_fpr: float, review_fpr: float) -> int:
    """Compute the number of images from which two rates always have different thresholds.

    With n images the thresholds are the scores of rank max(1, floor(alpha (n + 1))), see
    `flows.fastflow.calibration.conformal`. Both ranks are k > 1 for
    k / target_fpr <= n + 1 < (k + 1) / review_fpr, which is possible only for
    k < target_fpr / (review_fpr - target_fpr).

    Args:
        target_fpr: rate of rejected good parts.
        review_fpr: rate of good parts that are rejected or reviewed, above `target_fpr`.
    """
    images = math.ceil(max(2, math.ceil(target_fpr / (review_fpr - target_fpr))) / review_fpr)
    # Not every such interval contains a whole number.
    while images > 1 and not _is_empty(images - 1, target_fpr, review_fpr):
        images -= 1
    return images


def describe_empty_band(images: int, target_fpr: float, review_fpr: float | None) -> str | None:
    """Explain in a line why a review band is empty; None if it is not, or without a band.

    Args:
        images: number of calibration images.
        target_fpr, review_fpr: see `min_images_for_band`; None for no band.

    Raises:
        ValueError: a rate is not in (0, 1).
    """
    if review_fpr is None or review_fpr <= target_fpr or not _is_empty(images, target_fpr, review_fpr):
        return None
    return (
        f"the review band is empty: {images} calibration images cannot separate {target_fpr:.2%} from "
        f"{review_fpr:.2%}, so no part goes to review; use at least "
        f"{min_images_for_band(target_fpr, review_fpr)} images"
    )
