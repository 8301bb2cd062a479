import itertools

import numpy as np
import pytest
from scipy import stats

from app.history import kolmogorov

SIZES = [(1, 1), (1, 7), (3, 200), (10, 200), (37, 37), (50, 20), (64, 48)]


@pytest.mark.parametrize(("m", "n"), SIZES)
@pytest.mark.parametrize("rising", [False, True])
def test_agrees_with_scipy(m: int, n: int, rising: bool) -> None:
    rng = np.random.default_rng(m * n)
    for shift in (0.0, 0.5, 1.0, 2.0):
        reference, sample = np.sort(rng.normal(size=n)), np.sort(rng.normal(shift, size=m))
        # scipy's "less": the first sample's distribution lies below, so its values are greater.
        expected = stats.ks_2samp(
            sample, reference, alternative="less" if rising else "two-sided", method="exact"
        )
        found = kolmogorov.steps(reference, sample, rising=rising)
        assert found / (m * n) == pytest.approx(expected.statistic, abs=1e-12)
        assert kolmogorov.p_value(found, m, n, rising=rising) == pytest.approx(expected.pvalue, abs=1e-11)


def test_counts_every_order_of_two_small_samples() -> None:
    m, n = 3, 4
    distances = []
    for places in itertools.combinations(range(m + n), m):
        sample = np.array(places, dtype=float)
        reference = np.array([x for x in range(m + n) if x not in places], dtype=float)
        distances.append(kolmogorov.steps(reference, sample))
    for k in range(1, m * n + 1):
        share = float(np.mean([d >= k for d in distances]))
        assert kolmogorov.p_value(k, m, n) == pytest.approx(share, abs=1e-12)


def test_ties_within_and_between_the_samples() -> None:
    reference, sample = np.array([1.0, 1, 2, 2, 3]), np.array([1.0, 2, 2, 3, 3])
    expected = stats.ks_2samp(sample, reference, method="asymp").statistic
    assert kolmogorov.steps(reference, sample) / 25 == pytest.approx(expected)
    assert kolmogorov.steps(reference, reference) == 0
    assert kolmogorov.p_value(0, 5, 5) == 1.0


def test_with_ties_a_level_is_exceeded_no_more_often() -> None:
    rng = np.random.default_rng(5)
    k = kolmogorov.critical(0.05, 30, 40)
    assert k is not None
    apart = [
        kolmogorov.steps(
            np.sort(rng.integers(0, 6, 40).astype(float)), np.sort(rng.integers(0, 6, 30).astype(float))
        )
        >= k
        for _ in range(2000)
    ]
    assert np.mean(apart) <= 0.05


@pytest.mark.parametrize(("m", "n"), [(10, 200), (37, 37), (200, 60)])
@pytest.mark.parametrize("level", [0.05, 1e-4])
@pytest.mark.parametrize("rising", [False, True])
def test_the_critical_distance_is_the_least_that_keeps_the_level(
    m: int, n: int, level: float, rising: bool
) -> None:
    k = kolmogorov.critical(level, m, n, rising=rising)
    assert k is not None
    assert kolmogorov.p_value(k, m, n, rising=rising) <= level
    assert kolmogorov.p_value(k - 1, m, n, rising=rising) > level


def test_says_where_no_samples_can_be_far_enough_apart() -> None:
    assert kolmogorov.critical(1e-5, 2, 100) is None
    assert kolmogorov.critical(1e-5, 4, 200) is not None


def test_the_asymptotic_law_joins_the_exact_one() -> None:
    m = n = 2001  # the first square beyond what is computed exactly
    assert m * n > kolmogorov._LARGEST_EXACT >= 2000 * 2000
    for distance in (0.05, 0.06, 0.07):
        beyond = kolmogorov.p_value(round(distance * m * n), m, n)
        exact = kolmogorov.p_value(round(distance * 2000 * 2000), 2000, 2000)
        assert beyond == pytest.approx(exact, rel=0.1)


def test_the_sample_need_not_be_the_smaller_one() -> None:
    reference, sample = np.arange(5.0), np.arange(40.0) + 3
    expected = stats.ks_2samp(sample, reference, alternative="less", method="exact").pvalue
    found = kolmogorov.steps(reference, sample, rising=True)
    assert kolmogorov.p_value(found, 40, 5, rising=True) == pytest.approx(expected, abs=1e-11)
    assert kolmogorov.steps(sample, reference, rising=True) < found
