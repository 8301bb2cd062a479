"""Fit of a learned part to a few defects."""

import numpy as np
import pytest
from numpy.typing import NDArray

from flows.fastflow.learning.fit import LearnedFit, fit_learned

D = 40
Array = NDArray[np.float64]


def good_images(rng: np.random.Generator, n: int) -> Array:
    """Correlated numbers far from 0, of different scales."""
    mixing = np.random.default_rng(9).normal(size=(D, D))
    return np.asarray(5 + (rng.normal(size=(n, D)) @ mixing) * np.linspace(0.1, 3, D))


def defects(rng: np.random.Generator, n: int) -> Array:
    """Images that differ in some of the numbers, each by another amount."""
    shift = good_images(np.random.default_rng(8), 200).std(0) * (np.arange(D) < 10)
    return np.asarray(good_images(rng, n) + rng.uniform(0.5, 4, (n, 1)) * shift)


def fitted(rng: np.random.Generator, reviewed: Array) -> LearnedFit:
    return fit_learned(good_images(rng, 150), rng.normal(3, 0.5, 150), reviewed)


def test_new_defects_get_more_than_new_good_images() -> None:
    rng = np.random.default_rng(0)
    fit = fitted(rng, defects(rng, 10))
    assert fit.strength == 1
    good, defective = (
        images @ fit.weights + fit.bias for images in (good_images(rng, 400), defects(rng, 400))
    )
    assert np.mean(defective > np.quantile(good, 0.95)) > 0.6
    # 0.75 of the scores' deviation, without the optimism of images that were fitted.
    assert good.std() == pytest.approx(0.75 * 0.5, rel=0.3)
    assert good.mean() == pytest.approx(0, abs=0.1)
    # Left-out defects are as new ones.
    assert fit.left_out.mean() == pytest.approx(defective.mean(), rel=0.4)


def test_good_images_called_defects_teach_little() -> None:
    strengths = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        fit = fitted(rng, good_images(rng, 10))
        strengths.append(fit.strength)
        if fit.strength == 0:
            assert not fit.weights.any()
    assert np.mean(strengths) < 0.4
    assert strengths.count(0) >= 5


def test_too_few_images_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="needs 5 defects and 20 good images; got 4 and 150"):
        fitted(rng, defects(rng, 4))


def test_channel_that_good_images_never_use_does_not_decide() -> None:
    rng = np.random.default_rng(0)

    def add_unused(images: Array, used: Array) -> Array:
        return np.column_stack((images, np.zeros(len(images)) + used))

    reviewed = add_unused(defects(rng, 10), rng.uniform(0, 0.02, 10))
    good, scores = add_unused(good_images(rng, 150), np.zeros(1)), rng.normal(3, 0.5, 150)
    fit = fit_learned(good, scores, reviewed)
    assert abs(fit.weights[-1]) * 0.02 < scores.std()


def test_few_images_give_ledoit_and_wolfs_covariance() -> None:
    from sklearn.covariance import ledoit_wolf

    rng = np.random.default_rng(0)
    good, reviewed = good_images(rng, 25), defects(rng, 6)
    fit = fit_learned(good, rng.normal(3, 0.5, 25), reviewed)
    deviation = good.std(0)
    values, vectors = np.linalg.eigh(ledoit_wolf((good - good.mean(0)) / deviation, assume_centered=True)[0])
    metric = (vectors * values**-0.25) @ vectors.T
    turned = (reviewed - good.mean(0)) / deviation @ metric
    direction = metric @ (turned / np.linalg.norm(turned, axis=1, keepdims=True)).sum(0)
    weights = fit.weights * deviation
    assert weights @ direction == pytest.approx(np.linalg.norm(weights) * np.linalg.norm(direction))
