"""Pixel metrics: against hand-computed cases, scikit-learn and plain definitions."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from tests.training.evaluation.metrics.maps import (
    Maps,
    Masks,
    made_up,
    pixel_figures,
    plain_aupimo,
    plain_aupro,
)
from training.evaluation.metrics.image_metrics import MetricError
from training.evaluation.metrics.pixel_metrics import PixelMetrics

# Noise; few distinct scores; one far-out score after the other.
CASES = {
    "continuous": made_up(0),
    "rounded": made_up(1, decimals=1),
    "coarse": made_up(2, decimals=0),
    "heavy tail": made_up(3, tail=8.0),
    "next to each other": ([1e4 + 1e-3 * m for m in made_up(4)[0]], made_up(4)[1]),
}
every_case = pytest.mark.parametrize(("maps", "masks"), CASES.values(), ids=CASES)


def mask(*rows: str) -> NDArray[np.bool_]:
    return np.array([[c == "x" for c in row] for row in rows])


def flat(maps: Maps, masks: Masks) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    return np.concatenate([k.ravel() for k in masks]), np.concatenate([m.ravel() for m in maps])


@every_case
def test_areas_are_scikit_learns(maps: Maps, masks: Masks) -> None:
    truth, scores = flat(maps, masks)
    found = pixel_figures(maps, masks)
    assert found.auroc == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    assert found.average_precision == pytest.approx(average_precision_score(truth, scores), abs=1e-12)
    precision, recall, _ = precision_recall_curve(truth, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    assert found.f1_max.value == pytest.approx(f1.max(), abs=1e-12)
    rejected = scores >= found.f1_max.threshold
    assert 2 * np.sum(rejected & truth) / (rejected.sum() + truth.sum()) == pytest.approx(f1.max(), abs=1e-12)


@every_case
def test_aupro_is_its_definition(maps: Maps, masks: Masks) -> None:
    found = pixel_figures(maps, masks)
    for limit in (0.3, 0.05):
        wanted = plain_aupro(maps, masks, limit)
        assert found.aupro[limit] == pytest.approx(wanted, abs=1e-9)


def test_aupro_by_hand() -> None:
    """Two regions of one and four pixels count the same; 20 good pixels."""
    truth = [mask("x....", ".....", "xx...", "xx...", ".....")]
    scores = np.full((5, 5), 1.0, dtype=np.float32)
    scores[0, 0] = 9.0
    scores[0, 4] = 8.0
    scores[2, :2] = 7.0
    scores[4, 4] = 6.0
    # Overlap 1/2 up to the good pixel at 8; 3/4 until the one at 6 (rate 0.1); from there a line to (1, 1).
    up_to_a_tenth = 0.05 * 0.5 + 0.05 * 0.75
    rest = 0.2 * (0.75 + 0.25 * 0.2 / 0.9 / 2)
    found = pixel_figures([scores], truth)
    assert found.aupro[0.3] == pytest.approx((up_to_a_tenth + rest) / 0.3)
    assert found.regions == 2


def test_pixels_that_touch_by_a_corner_are_one_region() -> None:
    truth = [mask("x..", ".x.", "...")]
    assert pixel_figures([np.zeros((3, 3), dtype=np.float32)], truth).regions == 1


def test_pixel_auroc_pools_all_pixels_of_all_images() -> None:
    """Images of unlike sizes: each pixel counts once, on one scale for all."""
    masks = [mask("x."), mask("x...", "....")]
    maps = [
        np.array([[9.0, 8.0]], dtype=np.float32),
        np.array([[2.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]], dtype=np.float32),
    ]
    # Each image alone would give 1; together, the second's defect is below the first's good pixel.
    assert pixel_figures(maps, masks).auroc == pytest.approx((8 + 7) / 16, abs=1e-15)


def test_more_scores_than_bins_are_exact_to_1e_4() -> None:
    """Half a million distinct scores of energies, and defects of a few pixels."""
    maps, masks = made_up(9, images=8, size=256, tail=0.8)
    truth, scores = flat(maps, masks)
    assert len(np.unique(scores)) > 2**18
    found = pixel_figures(maps, masks)
    assert found.auroc == pytest.approx(roc_auc_score(truth, scores), abs=1e-6)
    assert found.average_precision == pytest.approx(average_precision_score(truth, scores), abs=2e-5)
    for limit in (0.3, 0.05):
        assert found.aupro[limit] == pytest.approx(plain_aupro(maps, masks, limit), abs=1e-5)
    assert found.aupimo == pytest.approx(np.mean(plain_aupimo(maps, masks, 1e-5, 1e-4)), abs=1e-4)


def test_curves_begin_as_high_as_all_that_lies_at_a_rate_of_0() -> None:
    maps, masks = made_up(11, images=4, size=32)
    for score_map, truth in zip(maps, masks, strict=True):
        score_map[truth] += np.float32(100)
    curves = pixel_figures(maps, masks).curves
    assert curves.tpr[0] == curves.tpr[-1] == 1
    assert curves.pro[0] == curves.pro[-1] == pytest.approx(1)


@pytest.mark.parametrize("kind", [False, True])
def test_both_kinds_are_needed(kind: bool) -> None:
    maps, masks = [np.zeros((2, 2), dtype=np.float32)], [np.full((2, 2), kind)]
    with pytest.raises(MetricError, match="need defective and good pixels"):
        pixel_figures(maps, masks)


@pytest.mark.parametrize(
    ("score_map", "truth", "message"),
    [
        (np.zeros((2, 3), np.float32), np.zeros((3, 2), np.bool_), r"got \(2, 3\) and \(3, 2\) of bool"),
        (np.zeros((1, 2, 2), np.float32), np.zeros((1, 2, 2), np.bool_), r"a map \(H, W\)"),
        (np.zeros((2, 2), np.float32), np.zeros((2, 2), np.uint8), "of uint8"),
        (np.array([[1, np.nan]], np.float32), np.zeros((1, 2), np.bool_), "must be finite; 1 of its 2"),
        (np.array([[np.inf, np.nan]], np.float32), np.ones((1, 2), np.bool_), "must be finite; 2 of its 2"),
    ],
)
def test_image_of_another_shape_is_refused(
    score_map: NDArray[np.float32], truth: NDArray[np.bool_], message: str
) -> None:
    with pytest.raises(MetricError, match=message):
        PixelMetrics().update(score_map, truth)
