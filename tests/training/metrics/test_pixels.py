"""Metrics of pixels: by hand, as scikit-learn, torchmetrics and the plain definitions say, chunk by chunk."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from tests.training.metrics.maps import Maps, Masks, made_up, plain_aupro
from training.metrics import MetricError, PixelMetrics, aupro, pixel_figures

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


def test_areas_are_torchmetrics() -> None:
    maps, masks = made_up(5, decimals=2)
    truth, scores = flat(maps, masks)
    inside = (scores - scores.min()) / (scores.max() - scores.min())  # it squashes what lies outside 0 ... 1
    found = pixel_figures([m.reshape(48, 48) for m in np.split(inside, len(maps))], masks)
    target = torch.from_numpy(truth).int()
    assert found.auroc == pytest.approx(float(binary_auroc(torch.from_numpy(inside), target)), abs=1e-5)
    wanted = float(binary_average_precision(torch.from_numpy(inside), target))
    assert found.average_precision == pytest.approx(wanted, abs=1e-5)


@every_case
def test_aupro_is_its_definition(maps: Maps, masks: Masks) -> None:
    found = pixel_figures(maps, masks)
    for limit in (0.3, 0.05):
        wanted = plain_aupro(maps, masks, limit)
        assert found.aupro[limit] == pytest.approx(wanted, abs=1e-9)
        assert aupro(maps, masks, limit) == pytest.approx(wanted, abs=1e-9)


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
    assert aupro([scores], truth, 0.1) == pytest.approx(up_to_a_tenth / 0.1)
    assert aupro([scores], truth) == pytest.approx((up_to_a_tenth + rest) / 0.3)
    assert pixel_figures([scores], truth).regions == 2


def test_pixels_that_touch_by_a_corner_are_one_region() -> None:
    truth = [mask("x..", ".x.", "...")]
    assert pixel_figures([np.zeros((3, 3), dtype=np.float32)], truth).regions == 1


def test_pixel_auroc_is_over_all_pixels_of_all_pictures_not_a_mean_of_areas() -> None:
    """Pictures of unlike sizes: each pixel counts once, on one scale for all."""
    masks = [mask("x."), mask("x...", "....")]
    maps = [
        np.array([[9.0, 8.0]], dtype=np.float32),
        np.array([[2.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]], dtype=np.float32),
    ]
    # Each picture alone would give 1; together, the second's defect is below the first's good pixel.
    assert pixel_figures(maps, masks).auroc == pytest.approx((8 + 7) / 16, abs=1e-15)


@every_case
def test_curves_pass_through_the_rates_of_thresholds(maps: Maps, masks: Masks) -> None:
    truth, scores = flat(maps, masks)
    curves = pixel_figures(maps, masks).curves
    assert curves.fpr[0] == 0
    assert curves.fpr[-1] == curves.tpr[-1] == 1
    assert curves.pro[-1] == pytest.approx(1)
    assert (np.diff(curves.tpr) >= 0).all()
    assert (np.diff(curves.pro) >= 0).all()
    for threshold in np.quantile(scores, [0.1, 0.5, 0.9]):
        fpr, tpr = np.mean(scores[~truth] >= threshold), np.mean(scores[truth] >= threshold)
        before, after = np.interp(fpr, curves.fpr, curves.tpr) + np.array([-0.02, 0.02])
        assert before <= tpr <= after or len(np.unique(scores)) < 20  # few scores: long straight lines


@every_case
def test_any_chunks_give_the_same(monkeypatch: pytest.MonkeyPatch, maps: Maps, masks: Masks) -> None:
    whole = pixel_figures(maps, masks)
    monkeypatch.setattr("training.metrics.sorted_runs.CHUNK", 256)
    parts = pixel_figures(maps, masks)
    assert parts.auroc == pytest.approx(whole.auroc, abs=1e-12)
    assert parts.average_precision == pytest.approx(whole.average_precision, abs=1e-12)
    assert parts.f1_max == pytest.approx(whole.f1_max, abs=1e-12)
    assert parts.aupro == pytest.approx(whole.aupro, abs=1e-12)
    np.testing.assert_allclose(parts.curves.pro, whole.curves.pro, atol=1e-12)
    np.testing.assert_allclose(parts.curves.tpr, whole.curves.tpr, atol=1e-12)


def test_curves_rise_at_a_rate_as_high_as_all_that_lies_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Defects above every good pixel take several chunks, all of them at the rate 0."""
    maps, masks = made_up(11, pictures=4, size=32)
    for score_map, truth in zip(maps, masks, strict=True):
        score_map[truth] += np.float32(100)
    monkeypatch.setattr("training.metrics.sorted_runs.CHUNK", 64)
    curves = pixel_figures(maps, masks).curves
    assert curves.tpr[0] == curves.tpr[-1] == 1
    assert curves.pro[0] == curves.pro[-1] == pytest.approx(1)


def test_order_of_pictures_does_not_matter() -> None:
    maps, masks = made_up(6, decimals=1)
    forward, backward = pixel_figures(maps, masks), pixel_figures(maps[::-1], masks[::-1])
    assert forward.auroc == pytest.approx(backward.auroc, abs=1e-12)
    assert forward.aupro == pytest.approx(backward.aupro, abs=1e-12)


def test_figures_so_far_and_figures_in_the_end() -> None:
    maps, masks = made_up(7)
    with PixelMetrics() as metrics:
        for i, (score_map, truth) in enumerate(zip(maps, masks, strict=True)):
            metrics.update(score_map, truth)
            if i == 3:
                assert metrics.compute().auroc == pixel_figures(maps[:4], masks[:4]).auroc
        assert metrics.compute().auroc == pixel_figures(maps, masks).auroc


def test_few_good_pixels_leave_only_aupimo_out() -> None:
    found = pixel_figures(*made_up(8, pictures=2, size=16))
    assert found.aupimo is None
    assert found.aupimo_per_picture is None
    assert 0 < found.auroc < 1


@pytest.mark.parametrize("kind", [False, True])
def test_both_kinds_are_needed(kind: bool) -> None:
    maps, masks = [np.zeros((2, 2), dtype=np.float32)], [np.full((2, 2), kind)]
    with pytest.raises(MetricError, match="need defective and good pixels"):
        pixel_figures(maps, masks)
    with pytest.raises(MetricError, match="need defective and good pixels"):
        aupro(maps, masks)


def test_nothing_is_an_error() -> None:
    with pytest.raises(MetricError), PixelMetrics() as metrics:
        metrics.compute()


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
def test_what_does_not_fit_is_refused(
    score_map: NDArray[np.float32], truth: NDArray[np.bool_], message: str
) -> None:
    with pytest.raises(MetricError, match=message), PixelMetrics() as metrics:
        metrics.update(score_map, truth)
    with pytest.raises(MetricError, match=message):
        aupro([score_map], [truth])
