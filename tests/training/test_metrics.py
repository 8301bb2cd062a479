"""Metrics: by hand on small cases, scikit-learn's on raw scores, and errors where they are not defined."""

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from training.metrics import MetricError, image_auroc, pixel_auroc


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
def test_image_auroc_is_the_chance_that_a_defect_outscores_a_good_part(
    good: list[float], defective: list[float], area: float
) -> None:
    truth = [False] * len(good) + [True] * len(defective)
    assert image_auroc(truth, good + defective) == pytest.approx(area, abs=1e-15)


def test_image_auroc_counts_pairs() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(60) < 0.4
    scores = np.round(rng.normal(truth, 1.0), 1)  # rounded: ties
    wins = [1.0 if d > g else 0.5 if d == g else 0.0 for d, g in product(scores[truth], scores[~truth])]
    assert image_auroc(truth.tolist(), scores.tolist()) == pytest.approx(np.mean(wins), abs=1e-12)


def test_image_auroc_is_taken_on_raw_scores() -> None:
    """Rounding, clipping or squashing would tie what is told apart by the last bits."""
    base = 20.0
    scores = [base, np.nextafter(base, 21), np.nextafter(np.nextafter(base, 21), 21)]
    assert image_auroc([False, False, True], scores) == 1.0
    assert image_auroc([False, True], [1e6, 2e6]) == 1.0


def test_image_auroc_is_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    truth = rng.random(500) < 0.3
    scores = rng.normal(truth, 2.0)
    assert image_auroc(truth.tolist(), scores.tolist()) == roc_auc_score(truth, scores)


@pytest.mark.parametrize(("truth", "kind"), [([False, False], "good"), ([True, True, True], "defective")])
def test_image_auroc_needs_both_kinds(truth: list[bool], kind: str) -> None:
    with pytest.raises(MetricError, match=rf"needs good and defective test pictures; all .* are {kind}$"):
        image_auroc(truth, [0.5] * len(truth))


def test_image_auroc_of_nothing_is_an_error() -> None:
    with pytest.raises(MetricError):
        image_auroc([], [])


def mask(*rows: str) -> NDArray[np.bool_]:
    return np.array([[c == "x" for c in row] for row in rows])


def test_pixel_auroc_by_hand() -> None:
    masks = [mask("x.", ".."), mask("..", "..")]
    maps = [
        np.array([[4.0, 1.0], [5.0, 0.0]], dtype=np.float32),
        np.array([[4.0, 2.0], [2.0, 1.0]], dtype=np.float32),
    ]
    # The defective pixel has 4.0; of the seven good ones five are below, one is equal, one above.
    assert pixel_auroc(masks, maps) == pytest.approx(5.5 / 7, abs=1e-15)


def test_pixel_auroc_is_over_all_pixels_of_all_pictures_not_a_mean_of_areas() -> None:
    """Pictures of unlike sizes: each pixel counts once, on one scale for all."""
    masks = [mask("x."), mask("x...", "....")]
    maps = [
        np.array([[9.0, 8.0]], dtype=np.float32),
        np.array([[2.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]], dtype=np.float32),
    ]
    # Each picture alone would give 1; together, the second's defect is below the first's good pixel.
    assert pixel_auroc(masks, maps) == pytest.approx((8 + 7) / 16, abs=1e-15)


def test_pixel_auroc_is_scikit_learns_on_raw_values() -> None:
    rng = np.random.default_rng(2)
    masks = [rng.random((16, 12)) < 0.1 for _ in range(5)]
    maps = [rng.normal(m, 1.0).astype(np.float32) for m in masks]
    wanted = roc_auc_score(np.stack(masks).ravel(), np.stack(maps).ravel())
    assert pixel_auroc(masks, maps) == wanted


@pytest.mark.parametrize("kind", [False, True])
def test_pixel_auroc_needs_both_kinds(kind: bool) -> None:
    masks = [np.full((2, 2), kind)]
    with pytest.raises(MetricError, match="needs defective and good pixels"):
        pixel_auroc(masks, [np.zeros((2, 2), dtype=np.float32)])
