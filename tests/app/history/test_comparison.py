import numpy as np
import pytest

from app.history.comparison import FALSE_ALARMS, MIN_DISTANCE, Comparison, compare

TESTS = 60


def apart(above: int, m: int, n: int, *, rising: bool, downwards: bool = False) -> Comparison:
    """Compare m inspections with n calibration images; some inspections are above or below all of them."""
    sample = np.arange(n, dtype=np.float64)
    spread = np.linspace(-0.5, n - 0.5, m - above)
    far = np.full(above, -9.0 if downwards else n + 9.0)
    return compare("score", sample, np.concatenate([far, spread]), TESTS, rising=rising)


@pytest.mark.parametrize("rising", [False, True])
@pytest.mark.parametrize(("m", "n"), [(100, 30), (200, 400), (10, 1000)])
def test_alarm_distance_is_the_smallest_significant(m: int, n: int, rising: bool) -> None:
    comparisons = [apart(above, m, n, rising=rising) for above in range(m + 1)]
    certain = [one.p_value <= FALSE_ALARMS and one.distance >= MIN_DISTANCE for one in comparisons]
    alarms = [one.reaches() for one in comparisons]
    assert alarms == sorted(alarms)
    assert all(is_certain for is_certain, is_alarm in zip(certain, alarms, strict=True) if is_alarm)
    assert sum(certain) - sum(alarms) in (0, 1)


def test_too_few_values_are_never_significant() -> None:
    assert apart(5, 5, 3, rising=False).alarm_distance is None
    assert not apart(5, 5, 3, rising=False).reaches()


def test_rising_comparison_ignores_lower_values() -> None:
    assert apart(90, 100, 100, rising=True).reaches()
    assert apart(90, 100, 100, rising=False, downwards=True).reaches()
    assert not apart(90, 100, 100, rising=True, downwards=True).reaches()
    assert apart(90, 100, 100, rising=True, downwards=True).shift < -0.5


def test_small_differences_of_many_values_are_no_alarm() -> None:
    small = apart(150, 2000, 2000, rising=False)
    assert small.p_value < FALSE_ALARMS
    assert small.alarm_distance == MIN_DISTANCE
    assert not small.reaches()
