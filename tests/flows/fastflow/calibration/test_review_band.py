"""Empty review bands are explained, with the number of images that a band needs."""

import pytest

from flows.fastflow.calibration.review_band import describe_empty_band, min_images_for_band

RATES = [(0.01, 0.03), (0.01, 0.011), (0.005, 0.5), (0.5, 0.9), (0.02, 0.03), (0.07, 0.0701)]


def test_empty_band_is_described() -> None:
    assert describe_empty_band(42, 0.01, 0.03) == (
        "the review band is empty: 42 calibration images cannot separate 1.00% from 3.00%, so no part goes "
        "to review; use at least 66 images"
    )
    assert describe_empty_band(65, 0.01, 0.03) is not None
    assert describe_empty_band(66, 0.01, 0.03) is None
    assert describe_empty_band(200, 0.01, 0.03) is None


@pytest.mark.parametrize(("target", "review"), RATES)
def test_band_is_never_empty_from_min_images_on(target: float, review: float) -> None:
    needed = min_images_for_band(target, review)
    assert all(describe_empty_band(n, target, review) is None for n in range(needed, 3 * needed + 100) if n)
    assert needed == 1 or describe_empty_band(needed - 1, target, review) is not None
