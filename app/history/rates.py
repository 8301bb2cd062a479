"""Overkill and escape rates, estimated from reviews that prefer some decisions.

Overkill is P(REJECT | good), escape is P(PASS | defect). People mostly review rejected parts. So the shares
of good and defective parts are estimated within each decision, from its reviews, and weighted by the number
of inspections with that decision:

    overkill = N_REJECT g_REJECT / (N_PASS g_PASS + N_REVIEW g_REVIEW + N_REJECT g_REJECT)

with N_d inspections and the share g_d of good parts among the reviewed; escape likewise with the share of
defects. The estimate is unbiased if the reviews of a decision are a random sample of it.

The rates are those of the process that made the parts, so N_d is random too. The interval is a melded one
(Fay, Proschan, Brittain, "Combining one-sample confidence procedures for inference in the two-sample case",
Biometrics 71, 2015): each decision's rate of good parts lies between Gamma(N + 1) Beta(x, n - x + 1) and
Gamma(N + 1) Beta(x + 1, n - x) if x of n reviewed parts were good. The ratio takes from each the side that
widens it. If everything was reviewed, the two are Gamma(x) and Gamma(x + 1), the exact limits of a Poisson
count, and the interval is that of Clopper and Pearson.

For projected decisions (app/history/outlook.py) the good parts of a decision lie on both sides. One Dirichlet
draw gives both rates, so a single decision gives the interval of Clopper and Pearson again.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.database import clock
from app.schemas.history import Verdict
from app.schemas.predict import Decision
from app.schemas.reports import AuditRates, DecisionCounts, Rate

# By severity, the worst last.
DECISIONS: Final[tuple[Decision, ...]] = ("PASS", "REVIEW", "REJECT")
# The wrong decision for each verdict.
_WRONG: Final[Mapping[Verdict, Decision]] = {"good": "REJECT", "defect": "PASS"}

CONFIDENCE = 0.95
# The limits then have an error of a tenth of a percent of probability. The seed is fixed.
_DRAWS = 40_000

# By taken and projected decision: number of inspections, and of those reviewed with the verdict.
Projection = Mapping[tuple[Decision, Decision], tuple[int, int]]


class DecisionCell(NamedTuple):
    """Inspections with one decision, and their reviewed parts with one verdict.

    Attributes:
        inspections: number of inspections.
        reviewed: number of reviewed inspections, with any verdict.
        inside: parts with the verdict that get the wrong decision; None if impossible.
        outside: parts with the verdict that do not; None if impossible.
    """

    inspections: int
    reviewed: int
    inside: int | None
    outside: int | None


def estimate_overkill(counts: Mapping[Decision, DecisionCounts]) -> Rate:
    """Estimate the share of good parts that are rejected."""
    return estimate_rate(counts, "good")


def estimate_escape(counts: Mapping[Decision, DecisionCounts]) -> Rate:
    """Estimate the share of defective parts that pass."""
    return estimate_rate(counts, "defect")


def estimate_audit(counts: Mapping[Decision, DecisionCounts], from_ms: int) -> AuditRates | None:
    """Estimate both rates from the counts of the audit sample since a time; None if it is empty.

    The sample is random, so its decisions have the shares that they have on the line.
    """
    if not any(count.inspections for count in counts.values()):
        return None
    return AuditRates(
        from_=clock.iso(from_ms),
        decisions=dict(counts),
        overkill=estimate_overkill(counts),
        escape=estimate_escape(counts),
        unreviewed=sum(count.inspections - count.reviewed for count in counts.values()),
    )


def estimate_rate(
    counts: Mapping[Decision, DecisionCounts], verdict: Verdict, projection: Projection | None = None
) -> Rate:
    """Estimate the share of the parts with a verdict that get the wrong decision.

    Args:
        verdict: verdict of the parts.
        projection: decisions by other thresholds; by default the taken decisions.
    """
    found = {d: getattr(count, f"reviewed_{verdict}") for d, count in counts.items()}
    reason = _unknown(counts, found, verdict)
    if reason is not None:
        return Rate(value=None, low=None, high=None, reason=reason)
    if projection is None:
        projection = {(d, d): (count.inspections, found[d]) for d, count in counts.items()}
    cells = []
    for taken, count in counts.items():
        # A side without an inspection of this decision can have no part. Without any inspection, the next one
        # would be on the side of the taken decision.
        sides: dict[bool, int | None] = {True: None, False: None}
        for given in DECISIONS:
            n, parts = projection.get((taken, given), (0, 0))
            if n or (taken == given and not count.inspections):
                side = given == _WRONG[verdict]
                sides[side] = (sides[side] or 0) + parts
        cells.append(DecisionCell(count.inspections, count.reviewed, sides[True], sides[False]))
    return _share(tuple(cells))


def _unknown(
    counts: Mapping[Decision, DecisionCounts], found: Mapping[Decision, int], verdict: Verdict
) -> str | None:
    """Return the reason why the rate cannot be estimated, or None."""
    if not any(count.inspections for count in counts.values()):
        return "there are no inspections"
    missing = [
        (d, count.inspections) for d, count in counts.items() if count.inspections and not count.reviewed
    ]
    if missing:
        return f"nothing was reviewed of {', '.join(f'the {n} with decision {d}' for d, n in missing)}"
    return None if any(found.values()) else f"no part was reviewed as {verdict}"


@lru_cache(maxsize=1024)
def _share(cells: tuple[DecisionCell, ...]) -> Rate:
    """Return the weighted share of the inside parts; at least one part must be counted."""
    weights = [cell.inspections / cell.reviewed if cell.reviewed else 0.0 for cell in cells]
    inside = sum(w * (cell.inside or 0) for w, cell in zip(weights, cells, strict=True))
    outside = sum(w * (cell.outside or 0) for w, cell in zip(weights, cells, strict=True))
    rng = np.random.default_rng(0)
    lower, upper = _draw_shares(rng, cells, "outside"), _draw_shares(rng, cells, "inside")
    tail = (1 - CONFIDENCE) / 2
    low, high = float(np.quantile(lower, tail)), float(np.quantile(upper, 1 - tail))
    return Rate(value=inside / (inside + outside), low=low, high=high, reason=None)


def _draw_shares(
    rng: np.random.Generator, cells: Iterable[DecisionCell], widened: Literal["inside", "outside"]
) -> NDArray[np.float64]:
    """Draw shares with one side of every decision as large as its reviews allow.

    Of n reviewed parts, x are inside and y outside. Both shares come from the Dirichlet distribution with
    these counts as parameters, plus one on the widened side. If only one side is possible, this is
    Beta(x, n - x + 1) or Beta(x + 1, n - x).
    """
    totals = {"inside": np.zeros(_DRAWS), "outside": np.zeros(_DRAWS)}
    for cell in cells:
        sides = {"inside": cell.inside, "outside": cell.outside}
        one_more = {side: int(side == widened and x is not None) for side, x in sides.items()}
        rest = cell.reviewed - sum(x or 0 for x in sides.values()) + 1 - sum(one_more.values())
        drawn = {side: rng.gamma((x or 0) + one_more[side], size=_DRAWS) for side, x in sides.items()}
        whole = drawn["inside"] + drawn["outside"] + rng.gamma(rest, size=_DRAWS)
        weight = rng.gamma(cell.inspections + 1, size=_DRAWS) / whole
        for side, share_drawn in drawn.items():
            totals[side] += weight * share_drawn
    return totals["inside"] / (totals["inside"] + totals["outside"])
