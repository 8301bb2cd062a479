"""Images unlike the calibration images."""

import numpy as np
import pytest

from flows.fastflow.calibration.likeness import Likeness, min_images

RANDOM = np.random.default_rng(1)
GOOD = RANDOM.normal([1.0, 5.0, -2.0], [0.1, 1.0, 0.5], (60, 3))


def test_limit_leaves_each_image_out_of_its_own_covariance() -> None:
    distances = []
    for i, one in enumerate(GOOD):
        others = np.delete(GOOD, i, 0)
        difference = one - others.mean(0)
        distances.append(np.sqrt(difference @ np.linalg.inv(np.cov(others.T)) @ difference))
    assert Likeness(GOOD).limit == pytest.approx(2 * max(distances))


@pytest.mark.parametrize("n", [7, 10, 60])
def test_new_good_images_are_near_and_others_far(n: int) -> None:
    good = Likeness(GOOD[:n])
    new = RANDOM.normal([1.0, 5.0, -2.0], [0.1, 1.0, 0.5], (2000, 3))
    assert np.mean([good.is_far(one) for one in new]) < (0.05 if n == 7 else 0.01)
    assert good.is_far([1e3, 1e3, 1e3])


def test_equal_images_and_too_few_give_no_false_alarm() -> None:
    assert not Likeness(np.ones((9, 3))).is_far([1.0, 1.0, 1.0])
    assert not Likeness(np.vstack([np.ones((8, 3)), [[2.0, 2.0, 2.0]]])).is_far([9.0, 9.0, 9.0])
    with pytest.raises(ValueError, match="at least 7 images; got 6"):
        Likeness(GOOD[: min_images(3) - 1])
