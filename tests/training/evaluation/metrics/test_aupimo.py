"""AUPIMO: against its definition and hand-computed cases, and None with too few good pixels."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.training.evaluation.metrics.maps import made_up, pixel_figures, plain_aupimo
from training.evaluation.metrics.aupimo import aupimo, kept_scores


def of_scores(
    good: list[NDArray[np.float32]], defect: list[float], bounds: tuple[float, float] = (1e-5, 1e-4)
) -> float | None:
    """AUPIMO of one defective image, with every distinct good score as a threshold."""
    distinct = np.unique(np.concatenate(good))[::-1]
    shares = np.array([np.mean([(one == x).mean() for one in good]) for x in distinct])
    thresholds = distinct, np.nextafter(distinct, np.float32(np.inf))
    found = aupimo(thresholds, shares, [np.sort(np.array(defect, np.float32))], bounds)
    return None if found is None else float(found[0])


@pytest.mark.parametrize("decimals", [None, 2])
def test_it_is_its_definition(decimals: int | None) -> None:
    maps, masks = made_up(0, images=6, size=192, decimals=decimals, tail=1.0)
    wanted = np.mean(plain_aupimo(maps, masks, 1e-5, 1e-4))
    assert pixel_figures(maps, masks).aupimo == pytest.approx(wanted, abs=1e-9)


def test_by_hand() -> None:
    """100 good pixels of scores 0 ... 99; rates 0.01 ... 0.1 are reached at 99 ... 90."""
    # One pixel above all good ones, one just above the fifth highest (95), two below all that counts.
    area = of_scores([np.arange(100, dtype=np.float32)], [200, 95.5, 3, 3], (0.01, 0.1))
    wanted = (math.log(0.04 / 0.01) * 0.25 + math.log(0.1 / 0.04) * 0.5) / math.log(10)
    assert area == pytest.approx(wanted)


def test_rates_are_means_over_good_images_of_unlike_sizes() -> None:
    """The score 10 is a tenth of a small image: 0.05 of the two, though only 1 pixel in 110."""
    small = np.array([10, 0, 0, 0, 0, 0, 0, 0, 0, 0], dtype=np.float32)
    large = np.append(np.full(99, 0), 20).astype(np.float32)
    # Rates: 0.005 at 20, 0.055 at 10; between them the defect at 15 is seen.
    assert of_scores([small, large], [15, 5], (0.005, 0.055)) == pytest.approx(0.5)


@pytest.mark.parametrize(("pixels", "enough"), [(99_999, False), (100_000, True)])
def test_lower_end_above_its_bound_is_refused(pixels: int, enough: bool) -> None:
    """From 2e-5 on, a map that shows all of a defect above all good pixels would have no more than 0.7."""
    scores = np.arange(pixels, dtype=np.float32)[::-1]
    thresholds = scores, np.nextafter(scores, np.float32(np.inf))
    found = aupimo(thresholds, np.full(pixels, 1 / pixels), [np.array([1e6], np.float32)])
    assert (found is not None and found[0] > 0.85) == enough


def test_tie_at_the_threshold_is_not_certified() -> None:
    """Of 200,000 good pixels the highest four have one score: the lowest rate is 2e-5."""
    scores = np.minimum(np.arange(200_000), 199_996).astype(np.float32)
    distinct, counts = np.unique(scores, return_counts=True)
    thresholds = distinct[::-1], np.nextafter(distinct[::-1], np.float32(np.inf))
    assert aupimo(thresholds, counts[::-1] / 200_000, [np.array([1e6], np.float32)]) is None


def test_both_kinds_of_images_are_needed() -> None:
    one, none = np.array([1.0], np.float32), np.empty(0, np.float32)
    assert aupimo((none, none), np.empty(0), [one]) is None
    assert aupimo((one, one), np.ones(1), []) is None


def test_many_scores_are_kept_as_quantiles() -> None:
    scores = np.random.default_rng(0).permutation(np.arange(100_000, dtype=np.float32))
    kept = kept_scores(scores)
    assert len(kept) == 2**14
    for limit in (0, 17, 50_000, 99_990, 100_000):
        assert np.mean(kept >= limit) == pytest.approx(np.mean(scores >= limit), abs=1 / 2**14)
