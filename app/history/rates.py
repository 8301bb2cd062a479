"""Overkill and escape rates from reviews, which look at some decisions far more often than at others.

Overkill is P(REJECT | good), escape is P(PASS | defect). Who reviews mostly looks at what was rejected, so
the shares of good and of defective parts are estimated within each decision, from the reviewed ones of it,
and weighted by how many inspections got that decision:

    overkill = N_REJECT g_REJECT / (N_PASS g_PASS + N_REVIEW g_REVIEW + N_REJECT g_REJECT)

with N_d the inspections and g_d the share of good ones among the reviewed; escape likewise with the share of
defects. That is right where the reviewed of a decision are drawn from it without looking at the parts.

The rates are those of the process that made the parts: N_d is random as well. The interval is a melded one
(Fay, Proschan, Brittain, "Combining one-sample confidence procedures for inference in the two-sample case",
Biometrics 71, 2015): each decision's rate of good parts lies between Gamma(N + 1) Beta(x, n - x + 1) and
Gamma(N + 1) Beta(x + 1, n - x) where x of n reviewed ones were good, and the ratio takes from each the side
that widens it. Where everything was reviewed the two are Gamma(x) and Gamma(x + 1), the exact limits of a
Poisson count, and the interval is that of Clopper and Pearson.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Decision = Literal["PASS", "REVIEW", "REJECT"]
DECISIONS: tuple[Decision, ...] = ("PASS", "REVIEW", "REJECT")

CONFIDENCE = 0.95
# Enough for the limits' own error to be a tenth of a percent of probability; the same draws every time.
_DRAWS = 40_000


@dataclass(frozen=True)
class Stratum:
    """The inspections with one decision.

    Attributes:
        inspections: how many there are.
        good: of the reviewed ones, those whose part is good.
        defect: of the reviewed ones, those whose part is defective.
    """

    inspections: int = 0
    good: int = 0
    defect: int = 0

    @property
    def reviewed(self) -> int:
        """How many were reviewed."""
        return self.good + self.defect


@dataclass(frozen=True)
class Rate:
    """A rate with its interval of 95 % confidence; all three None where it cannot be known, and then why."""

    value: float | None
    low: float | None
    high: float | None
    reason: str | None


def overkill(strata: Mapping[Decision, Stratum]) -> Rate:
    """The share of good parts that are rejected."""
    return _rate(strata, "REJECT", "good")


def escape(strata: Mapping[Decision, Stratum]) -> Rate:
    """The share of defective parts that pass."""
    return _rate(strata, "PASS", "defect")


def _rate(strata: Mapping[Decision, Stratum], wanted: Decision, verdict: Literal["good", "defect"]) -> Rate:
    counts = {decision: strata.get(decision, Stratum()) for decision in DECISIONS}
    if not any(stratum.inspections for stratum in counts.values()):
        return _unknown("there are no inspections")
    unseen = [d for d, stratum in counts.items() if stratum.inspections and not stratum.reviewed]
    if unseen:
        missing = ", ".join(f"the {counts[d].inspections} with decision {d}" for d in unseen)
        return _unknown(f"nothing was reviewed of {missing}")
    found = {d: getattr(stratum, verdict) for d, stratum in counts.items()}
    if not any(found.values()):
        return _unknown(f"no part was reviewed as {verdict}")
    weighted = {
        d: stratum.inspections * found[d] / stratum.reviewed if stratum.reviewed else 0.0
        for d, stratum in counts.items()
    }
    low, high = _interval(counts, found, wanted)
    return Rate(weighted[wanted] / sum(weighted.values()), low, high, None)


def _unknown(reason: str) -> Rate:
    return Rate(None, None, None, reason)


def _interval(
    counts: Mapping[Decision, Stratum], found: Mapping[Decision, int], wanted: Decision
) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    lower, upper = {}, {}
    for decision in DECISIONS:
        stratum, x = counts[decision], found[decision]
        lower[decision] = _lower(rng, stratum.inspections, x, stratum.reviewed)
        upper[decision] = _upper(rng, stratum.inspections, x, stratum.reviewed)
    others = [decision for decision in DECISIONS if decision != wanted]
    tail = (1 - CONFIDENCE) / 2
    least = lower[wanted] / (lower[wanted] + sum(upper[d] for d in others))
    most = upper[wanted] / (upper[wanted] + sum(lower[d] for d in others))
    return float(np.quantile(least, tail)), float(np.quantile(most, 1 - tail))


def _lower(rng: np.random.Generator, inspections: int, x: int, n: int) -> NDArray[np.float64]:
    if x == 0:
        return np.zeros(_DRAWS)
    return rng.gamma(inspections + 1, size=_DRAWS) * rng.beta(x, n - x + 1, size=_DRAWS)


def _upper(rng: np.random.Generator, inspections: int, x: int, n: int) -> NDArray[np.float64]:
    count = rng.gamma(inspections + 1, size=_DRAWS)
    return count if x == n else count * rng.beta(x + 1, n - x, size=_DRAWS)
