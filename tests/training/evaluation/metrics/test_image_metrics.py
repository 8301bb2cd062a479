"""Image metrics: against hand-computed cases and scikit-learn, and their errors."""

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from training.evaluation.metrics.image_metrics import (
    MetricError,
    image_auroc,
    image_average_precision,
    image_f1_max,
    image_recall,
)


def ranked(seed: int, decimals: int) -> tuple[list[bool], list[float]]:
    """300 truths and scores; with few decimals many scores are equal."""
    rng = np.random.default_rng(seed)
    truth = rng.random(300) < 0.3
    return truth.tolist(), np.round(rng.normal(truth, 1.5), decimals).tolist()


@pytest.mark.parametrize(
    ("good", "defective", "area"),
    [
        ([1.0, 2.0], [3.0, 4.0], 1.0),
        ([3.0, 4.0], [1.0, 2.0], 0.0),
        ([1.0, 3.0], [2.0, 4.0], 0.75),  # of the pairs 1<2, 3>2, 1<4, 3<4
        ([1.0], [1.0], 0.5),  # a tie is half a win
        ([1.0, 1.0, 2.0], [1.0, 3.0], 4 / 6),  # 1/2 + 1/2 + 0 + 1 + 1 + 1
        ([-5.0, 0.0], [1e-9], 1.0),
    ],
)
def test_auroc_is_the_chance_that_a_defect_outscores_a_good_part(
    good: list[float], defective: list[float], area: float
) -> None:
    truth = [False] * len(good) + [True] * len(defective)
    assert image_auroc(truth, good + defective) == pytest.approx(area, abs=1e-15)


@pytest.mark.parametrize("decimals", [1, 9])
def test_they_are_scikit_learns(decimals: int) -> None:
    truth, scores = ranked(1, decimals)
    assert image_auroc(truth, scores) == roc_auc_score(truth, scores)
    assert image_average_precision(truth, scores) == average_precision_score(truth, scores)


@pytest.mark.parametrize("decimals", [0, 1, 9])
def test_f1_max_is_the_best_of_all_thresholds(decimals: int) -> None:
    truth, scores = ranked(3, decimals)
    every = {t: f1_score(truth, [s >= t for s in scores]) for t in set(scores)}
    found = image_f1_max(truth, scores)
    assert found.value == pytest.approx(max(every.values()), abs=1e-12)
    assert every[found.threshold] == pytest.approx(found.value, abs=1e-12)


@pytest.mark.parametrize(("fpr", "recall"), [(0, 0.25), (0.1, 0.75), (0.19, 0.75), (0.2, 1.0)])
def test_recall_is_at_the_lowest_allowed_threshold(fpr: float, recall: float) -> None:
    good, defective = [float(score) for score in range(10)], [7.5, 8.5, 9.0, 9.5]
    assert image_recall([False] * 10 + [True] * 4, good + defective, fpr) == recall


METRICS = [image_auroc, image_average_precision, image_f1_max]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("truth", "kind"), [([False, False], "good"), ([True, True, True], "defective")])
def test_both_kinds_are_needed(metric: Callable[..., object], truth: list[bool], kind: str) -> None:
    with pytest.raises(MetricError, match=rf"needs good and defective test images; all .* are {kind}$"):
        metric(truth, [0.5] * len(truth))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_scores_must_be_finite(metric: Callable[..., object], odd: float) -> None:
    with pytest.raises(MetricError, match="needs finite scores; 1 of 3 are not"):
        metric([False, True, True], [0.1, odd, 0.3])
