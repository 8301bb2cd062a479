"""Operating points: the rule of decisions, and intervals that cover the truth."""

import numpy as np
import pytest
from scipy.stats import beta

from flows.fastflow.calibration.calibrator import Calibrator
from flows.fastflow.manifest import Calibration
from training.evaluation.operating_points import RATES, OperatingPoint, operating_points


def points_of(at: Calibrator, scores: list[float], defective: list[bool]) -> list[OperatingPoint]:
    return operating_points(at, scores, defective, independent=True)


def calibrator(target_fpr: float = 0.01, n: int = 99) -> Calibrator:
    scores = [i / 100 for i in range(1, n + 1)]
    calibration = Calibration(
        scores=scores, statistics=[[0.0]] * n, pictures=None, map_typical=0.1, map_threshold=0.9
    )
    return Calibrator(calibration, target_fpr, identifier="test")


def test_each_rate_rejects_what_its_threshold_rejects() -> None:
    good, bad = [i / 100 for i in range(100)], [0.5, 0.9, 0.95, 1.0]
    points = points_of(calibrator(), [*good, *bad], [False] * 100 + [True] * 4)
    assert [point.target_fpr for point in points] == list(RATES)
    for point in points:
        assert point.threshold == calibrator().threshold_at(point.target_fpr).reject
        assert point.false_rejects is not None
        assert point.recall is not None
        assert point.false_rejects.value == sum(s > point.threshold for s in good) / 100
        assert point.recall.value == sum(s > point.threshold for s in bad) / 4
    assert [point.recall.value for point in points if point.recall] == [0.25, 0.25, 0.25, 0.25, 0.5]
    assert [point.certified for point in points] == [False, True, True, True, True]
    assert points[0].achievable_fpr == pytest.approx(0.01)


def test_the_rate_of_the_calibration_is_among_them_once() -> None:
    rates = [point.target_fpr for point in points_of(calibrator(0.03), [0.5], [False])]
    assert rates == [0.005, 0.01, 0.02, 0.03, 0.05, 0.1]
    assert len(points_of(calibrator(0.05), [0.5], [False])) == len(RATES)


def test_intervals_are_those_of_clopper_and_pearson() -> None:
    rng = np.random.default_rng(0)
    scores = rng.uniform(0, 1.2, 60)
    for point in points_of(calibrator(), scores.tolist(), [True] * 60):
        k = int((scores > point.threshold).sum())
        assert point.recall is not None
        assert point.recall.low == pytest.approx(beta.ppf(0.025, k, 61 - k))
        assert point.recall.high == pytest.approx(beta.ppf(0.975, k + 1, 60 - k))
