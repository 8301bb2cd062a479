"""Calibrators: scores to p-values, rates to thresholds, and the scores of several heads to one."""

import numpy as np
import pytest
from pydantic import ValidationError

from flows.fastflow import conformal
from flows.fastflow.calibration import Calibrator, Measurement, calibrate, measure
from flows.fastflow.manifest import Calibration


def measurements(scores: list[float]) -> list[Measurement]:
    return [Measurement(s, peak=2 * s, median=s / 10, statistics=(s, 1.0)) for s in scores]


def test_a_picture_is_measured_by_all_heads() -> None:
    score_map = np.array([[0.0, 1.0], [2.0, 5.0]], np.float32)
    assert measure((1.0, 2.0), score_map, (3.0, 4.0)) == Measurement(1.5, 5.0, 1.5, (3.0, 4.0))


def test_a_calibration_sorts_scores_and_all_that_belongs_to_them() -> None:
    made = calibrate(measurements([3.0, 1.0, 2.0]), 0.25, folds=[0, 1, 0])
    assert made.scores == [1.0, 2.0, 3.0]
    assert made.statistics == [[1.0, 1.0], [2.0, 1.0], [3.0, 1.0]]
    assert (made.folds, made.heads) == ([1, 0, 0], 2)
    assert made.map_threshold == conformal.threshold([2.0, 4.0, 6.0], 0.25).reject
    assert made.map_typical == 0.2


def test_no_pictures_or_no_numbers_calibrate_nothing() -> None:
    with pytest.raises(ValueError, match="at least one good image"):
        calibrate([], 0.1)
    with pytest.raises(ValueError, match="must be finite"):
        calibrate(measurements([1.0, float("nan")]), 0.1)


class TestSplit:
    def test_gives_what_split_conformal_prediction_does(self) -> None:
        scores = [float(i) for i in range(19)]
        made = Calibrator(calibrate(measurements(scores), 0.1), 0.1, identifier="x")
        assert made.threshold == conformal.threshold(scores, 0.1)
        assert made.at(0.2) == conformal.threshold(scores, 0.2)
        assert made.p_value(17.5) == conformal.p_value(17.5, scores)
        assert (made.guarantee, made.score([4.0])) == ("split", 4.0)
        assert made.colour_scale.middle == made.calibration.map_threshold

    def test_of_several_heads_takes_the_mean(self) -> None:
        made = Calibrator(calibrate(measurements([1.0, 2.0]), 0.1), 0.1, identifier="x")
        assert made.score([1.0, 2.0, 6.0]) == 3.0


def test_cross_gives_what_cross_conformal_prediction_does() -> None:
    scores, folds = [1.0, 2.0, 3.0, 4.0], [0, 1, 0, 1]
    made = Calibrator(calibrate(measurements(scores), 0.2, folds), 0.2, identifier="x")
    assert made.guarantee == "cross"
    assert made.threshold == conformal.threshold(scores, 0.2, models=2)
    own = [np.array([1.0, 3.0]), np.array([2.0, 4.0])]
    for by_head in ([3.5, 2.1], [0.0, 9.0], [9.0, 9.0]):
        score = made.score(by_head)
        assert score == conformal.cross_score(by_head, own)
        at_least = sum(s >= x for x, fold in zip(by_head, own, strict=True) for s in fold)
        assert made.p_value(score) == (1 + at_least) / 5


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ([0, 1], "3 scores need as many folds; got 2"),
        ([0, 0, 0], "at least two"),
        ([0, 2, 0], "without a gap"),
        ([-1, 0, 1], "greater than or equal to 0"),
        ([0, 1, 20], "less than 20"),
    ],
)
def test_folds_that_cannot_be(folds: list[int], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Calibration(scores=[1.0, 2.0, 3.0], folds=folds, map_typical=0, map_threshold=1)
