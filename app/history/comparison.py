"""Comparison of a statistic in inspections with the same in calibration images."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

# Probability of a false alarm per window, shared by all comparisons in it.
FALSE_ALARMS: Final = 0.01
# Smaller distances raise no alarm even if significant: more than one inspection in ten must have changed.
MIN_DISTANCE: Final = 0.1
# Beyond this many pairs of values the asymptotic law is used: the exact one takes too long.
_MAX_EXACT_PAIRS: Final = 200_000

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Comparison:
    """One statistic of inspections, compared with calibration images.

    Attributes:
        values: the statistic in the inspections, sorted; at least one.
        sample: its values in the calibration images, sorted.
        rising: true if only the upward distance counts.
        tests: number of comparisons that share the probability of a false alarm.
        distance: the largest difference of the two distributions, in [0, 1].
    """

    name: str
    values: Values
    sample: Values
    rising: bool
    tests: int
    distance: float
    inspections: int
    n_calibration: int

    @property
    def alarm_distance(self) -> float | None:
        """The distance that raises the alarm; None if no distance is significant."""
        return _alarm_distance(FALSE_ALARMS / self.tests, self.inspections, self.n_calibration, self.rising)

    @property
    def p_value(self) -> float:
        """Probability of this distance without drift, times the tests of a window (Bonferroni)."""
        return min(1.0, self.tests * _p_value(self.values, self.sample, rising=self.rising))

    @property
    def shift(self) -> float:
        """Cliff's delta, P(inspection > calibration image) - P(inspection < calibration image)."""
        below = int(np.searchsorted(self.sample, self.values, side="left").sum())
        not_above = int(np.searchsorted(self.sample, self.values, side="right").sum())
        pairs = self.inspections * self.n_calibration
        return (below - (pairs - not_above)) / pairs

    def reaches(self, share: float = 1.0) -> bool:
        """Tell if the distance reaches a share of the alarm distance."""
        return self.alarm_distance is not None and self.distance >= share * self.alarm_distance


def compare(name: str, sample: Values, values: Values, tests: int, *, rising: bool) -> Comparison:
    """Compare the values of a statistic in inspections, in any order, with a sorted sample of calibration."""
    values = np.sort(values)
    points = np.concatenate([sample, values])
    of_values = np.searchsorted(values, points, side="right") / len(values)
    difference = np.searchsorted(sample, points, side="right") / len(sample) - of_values
    distance = float(max(0.0, difference.max()) if rising else np.abs(difference).max())
    return Comparison(name, values, sample, rising, tests, distance, len(values), len(sample))


def _p_value(values: Values, sample: Values, *, rising: bool) -> float:
    """Return the p-value of the two-sample Kolmogorov-Smirnov test."""
    from scipy.stats import ks_2samp  # the import takes a second and would delay the start

    method = "exact" if len(values) * len(sample) <= _MAX_EXACT_PAIRS else "asymp"
    return float(
        ks_2samp(values, sample, alternative="less" if rising else "two-sided", method=method).pvalue
    )


@lru_cache(maxsize=4096)
def _alarm_distance(level: float, m: int, n: int, rising: bool) -> float | None:
    """Return the smallest significant distance of at least MIN_DISTANCE, in steps of 1 / m, or None."""
    low, high = 0, m
    if _p_value(*_samples_apart(m, n, m), rising=rising) > level:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if _p_value(*_samples_apart(m, n, middle), rising=rising) <= level:
            high = middle
        else:
            low = middle
    return max(high / m, MIN_DISTANCE)


def _samples_apart(m: int, n: int, steps: int) -> tuple[Values, Values]:
    """Build samples of m and n values whose distance is steps / m."""
    spread = np.arange(m - steps) * n // max(1, m - steps)
    return np.concatenate([spread, np.full(steps, n)]).astype(np.float64), np.arange(n, dtype=np.float64)
