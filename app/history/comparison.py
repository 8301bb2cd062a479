"""A statistic of the latest inspections against the same of the calibration images."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.history import kolmogorov

# The chance of an alarm that all comparisons in a window share, where nothing has changed.
FALSE_ALARMS: Final = 0.01
# What is certain but smaller than this is no alarm: it takes more than one inspection in ten that changed.
LEAST_DISTANCE: Final = 0.1


@dataclass(frozen=True)
class Comparison:
    """One statistic of the inspections in the window, against the calibration images.

    Attributes:
        name: "score", or which feature.
        inspections: how many inspections were compared.
        n_calibration: with how many calibration images.
        steps: their distance in steps of 1 / (inspections n_calibration).
        needed: the steps that raise the alarm; None where no distance is certain enough.
        shift: the chance that an inspection is above a calibration image less the chance that it is below
            (Cliff's delta), in [-1, 1].
        rising: whether only the upward distance counts.
        tests: how many comparisons share the chance of a false alarm.
    """

    name: str
    inspections: int
    n_calibration: int
    steps: int
    needed: int | None
    shift: float
    rising: bool
    tests: int

    @property
    def distance(self) -> float:
        """The largest difference of the two distributions, in [0, 1]."""
        return self.steps / (self.inspections * self.n_calibration)

    @property
    def alarm_distance(self) -> float | None:
        """The distance that raises the alarm; None where none is certain enough."""
        return None if self.needed is None else self.needed / (self.inspections * self.n_calibration)

    @property
    def p_value(self) -> float:
        """The chance of such a distance without drift, times the looks at all statistics of a window."""
        single = kolmogorov.p_value(self.steps, self.inspections, self.n_calibration, rising=self.rising)
        return min(1.0, self.tests * single)

    def reaches(self, share: float = 1.0) -> bool:
        """Whether the distance is at least a share of what raises the alarm."""
        return self.needed is not None and self.steps >= share * self.needed


def compare(
    name: str, sample: NDArray[np.float64], values: NDArray[np.float64], tests: int, *, rising: bool
) -> Comparison:
    """Compare.

    Args:
        name: of the statistic.
        sample: its values in the calibration images, sorted.
        values: in the inspections, in any order; at least one.
        tests: how many comparisons share the chance of a false alarm.
        rising: whether only the upward distance counts.
    """
    m, n = len(values), len(sample)
    values = np.sort(values)
    needed = kolmogorov.critical(FALSE_ALARMS / tests, m, n, rising=rising)
    if needed is not None:
        needed = max(needed, math.ceil(LEAST_DISTANCE * m * n))
    below = int(np.searchsorted(sample, values, side="left").sum())
    above = m * n - int(np.searchsorted(sample, values, side="right").sum())
    return Comparison(
        name=name,
        inspections=m,
        n_calibration=n,
        steps=kolmogorov.steps(sample, values, rising=rising),
        needed=needed,
        shift=(below - above) / (m * n),
        rising=rising,
        tests=tests,
    )
