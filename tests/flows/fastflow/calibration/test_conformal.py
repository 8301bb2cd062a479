"""The promise of the calibration itself: by its exact law, by simulation, and at its edges."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, betabinom

from flows.fastflow.calibration.conformal import (
    ConformalThreshold,
    compute_threshold,
    describe_promise,
    false_reject_band,
    fpr_at_95_confidence,
    p_value,
)

SCORES = st.floats(-1e6, 1e6) | st.integers(-3, 3).map(float)  # the latter for ties
CALIBRATIONS = st.lists(SCORES, min_size=1, max_size=120)
RATES = st.floats(1e-3, 0.999) | st.integers(1, 99).map(lambda percent: percent / 100)


@pytest.mark.parametrize(
    ("score", "expected"),
    [(0.0, 1.0), (1.0, 1.0), (1.5, 0.8), (2.0, 0.8), (3.0, 0.6), (3.1, 0.2), (9.0, 0.2)],
)
def test_p_value_counts_the_scores_at_least_as_large(score: float, expected: float) -> None:
    # The two tied scores of 3 count as not smaller than a third.
    assert p_value(score, [3.0, 1.0, 2.0, 3.0]) == expected


def test_threshold_is_the_lth_largest_score() -> None:
    calibration = np.random.default_rng(0).permutation(99).astype(float)  # 0 to 98
    assert compute_threshold(calibration, 0.05) == ConformalThreshold(
        reject=94.0, target_fpr=0.05, certified=True, achievable_fpr=0.05, n_calibration=99
    )


@pytest.mark.parametrize("n", [2, 5, 9, 48, 97, 999, 99_999])
def test_the_smallest_certifiable_rate_is_one_in_n_plus_one(n: int) -> None:
    calibration = np.arange(float(n))
    enough = compute_threshold(calibration, 1 / (n + 1))
    assert enough.certified
    assert enough.reject == n - 1
    too_few = compute_threshold(calibration, 0.999 / (n + 1))
    assert not too_few.certified
    assert too_few.reject == n - 1
    assert too_few.target_fpr < too_few.achievable_fpr == 1 / (n + 1)


@given(calibration=CALIBRATIONS, target=RATES, score=SCORES)
def test_rejecting_by_threshold_is_rejecting_by_p_value(
    calibration: list[float], target: float, score: float
) -> None:
    made = compute_threshold(calibration, target)
    p = p_value(score, calibration)
    assert (score > made.reject) == (p <= made.achievable_fpr)
    if made.certified:
        # 0.29 means 29/100 and not the double below it, hence the 1e-9.
        exact_p = Fraction(round(p * (len(calibration) + 1)), len(calibration) + 1)
        assert (score > made.reject) == (exact_p <= Fraction(target) * Fraction(1 + 1e-9))


def counts_of_false_rejects(
    n: int, n_test: int, target: float, draws: int, rng: np.random.Generator, ties: bool = False
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    counts = np.empty(draws, dtype=np.int64)
    for draw in range(draws):
        scores = rng.standard_exponential(n + n_test)  # skewed, as scores are
        if ties:
            scores = np.round(scores, 1)
        counts[draw] = np.count_nonzero(scores[n:] > compute_threshold(scores[:n], target).reject)
    return counts


@pytest.mark.parametrize(
    ("n", "n_test", "target"),
    [(282, 377, 0.01), (282, 377, 0.05), (282, 377, 0.10), (99, 50, 0.29), (30, 100, 0.01)],
)
def test_false_rejects_follow_the_beta_binomial_law(n: int, n_test: int, target: float) -> None:
    draws = 20_000
    counts = counts_of_false_rejects(n, n_test, target, draws, np.random.default_rng(1))
    rank = max(math.floor(round(target * (n + 1), 9)), 1)
    law = betabinom(n_test, rank, n + 1 - rank)

    # The promise: at most the target on average (or 1 / (n + 1) where n is too small for it).
    standard_error = law.std() / n_test / math.sqrt(draws)
    assert abs(counts.mean() / n_test - rank / (n + 1)) < 4 * standard_error

    # The whole law, by the largest distance of the distribution functions (Kolmogorov, 0.1 %).
    support = np.arange(n_test + 1)
    empirical = np.searchsorted(np.sort(counts), support, side="right") / draws
    assert np.abs(empirical - law.cdf(support)).max() < 1.95 / math.sqrt(draws)

    # The band holds what it says. It is of whole numbers, hence may hold a little more.
    low, high = false_reject_band(n, n_test, target)
    inside = np.mean((counts >= low) & (counts <= high))
    assert inside > 0.99 - 4 * math.sqrt(0.99 * 0.01 / draws)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99, 0.999])
@pytest.mark.parametrize(("n", "n_test", "target"), [(282, 377, 0.05), (9, 40, 0.01), (500, 1, 0.3)])
def test_the_band_is_the_narrowest_central_one(n: int, n_test: int, target: float, confidence: float) -> None:
    low, high = false_reject_band(n, n_test, target, confidence)
    rank = max(math.floor(round(target * (n + 1), 9)), 1)
    law = betabinom(n_test, rank, n + 1 - rank)
    tail = (1 - confidence) / 2
    assert 0 <= low <= high <= n_test
    assert law.cdf(low - 1) < tail <= law.cdf(low)
    assert law.sf(high) <= tail + 1e-12
    assert law.sf(high - 1) > tail


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        ([], "at least one good image"),
        (3.0, "one dimension"),
        ([[1.0, 2.0]], r"shape \(1, 2\)"),
        ([1.0, math.nan, math.inf], r"2 of 3 are not, the first at index 1 \(nan\)"),
        ([-math.inf], "must be finite"),
    ],
)
def test_bad_calibration_is_rejected(calibration: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compute_threshold(calibration, 0.1)
    with pytest.raises(ValueError, match=message):
        p_value(1.0, calibration)


@pytest.mark.parametrize("target", [0.0, 1.0, -0.1, 5.0, math.nan])
def test_target_that_is_no_rate_is_rejected(target: float) -> None:
    with pytest.raises(ValueError, match=r"target_fpr must lie in \(0, 1\), such as 0\.01 for 1 %"):
        compute_threshold([1.0], target)
    with pytest.raises(ValueError, match="target_fpr"):
        false_reject_band(10, 10, target)


@pytest.mark.parametrize("n", [1, 20, 99, 226, 5000])
@pytest.mark.parametrize("rate", [0.001, 0.01, 0.29, 0.9])
def test_fpr_at_95_confidence_is_a_beta_quantile(n: int, rate: float) -> None:
    rank = max(math.floor(round(rate * (n + 1), 9)), 1)
    assert fpr_at_95_confidence(n, rate) == pytest.approx(beta(rank, n + 1 - rank).ppf(0.95), rel=1e-10)


def test_promise_names_both_rates() -> None:
    assert describe_promise(226, 0.01) == (
        "at most 0.88% of good parts on average; with 95 % confidence at most 2.08%"
    )


def test_promise_without_images_or_rate_is_rejected() -> None:
    with pytest.raises(ValueError, match="needs calibration images; got 0"):
        fpr_at_95_confidence(0, 0.01)
    with pytest.raises(ValueError, match="target_fpr"):
        fpr_at_95_confidence(10, 1.0)
