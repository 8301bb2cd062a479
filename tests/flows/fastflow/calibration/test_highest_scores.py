"""The calibration images that a threshold depends on."""

import numpy as np

from flows.fastflow.calibration.conformal import compute_threshold
from flows.fastflow.calibration.highest_scores import (
    describe_highest_scoring,
    describe_recommended_rate,
    highest_scoring,
)

SCORES = [1.0, 9.0, 3.0, 2.0, 5.0, 4.0]


def test_five_highest_come_first() -> None:
    assert highest_scoring(SCORES) == [1, 4, 5, 2, 3]
    assert highest_scoring([1.0]) == [0]
    assert highest_scoring([1.0, 1.0]) == [0, 1]


def test_line_names_images_and_how_to_exclude_one() -> None:
    assert describe_highest_scoring(list("befcd"), SCORES) == (
        "highest of 6 good images to calibrate: b 9, e 5, f 4, c 3, d 2. If one shows a defect, move its "
        "file out of the folder and run the command again. A good part stays, however high its score."
    )


def test_rate_of_the_second_highest_is_recommended() -> None:
    said = describe_recommended_rate([float(i) for i in range(42)], 0.01)
    assert said == (
        "recommended: target_fpr 0.0466. Now a single image sets the threshold, and defects below its score "
        "pass. The threshold would be 40 instead of 41, and reject at most 4.65% of good parts on average; "
        "with 95 % confidence at most 10.80%."
    )


def test_nothing_is_recommended_if_several_images_set_it() -> None:
    scores = [float(i) for i in range(199)]
    assert describe_recommended_rate(scores, 0.01) is None
    assert "target_fpr 0.0101." in (describe_recommended_rate(scores[1:], 0.01) or "")
    assert describe_recommended_rate(scores[:3], 0.01) is None  # no rate up to 0.5 has two


def test_recommended_rate_has_the_second_highest_score() -> None:
    for n in range(4, 400):
        if said := describe_recommended_rate([float(i) for i in range(n)], 0.001):
            rate = float(said.split("target_fpr ")[1].split(". ")[0])
            assert compute_threshold(np.arange(float(n)), rate).reject == n - 2
