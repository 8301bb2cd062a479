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

Where a decision would have been another one (app/history/outlook.py), its good parts lie on both sides: their
two rates come from one Dirichlet draw, so that a decision alone gives Clopper and Pearson's interval again.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.schemas.history import Verdict
from app.schemas.predict import Decision
from app.schemas.reports import DecisionCounts, Rate

# By severity: the worst is the last.
DECISIONS: Final[tuple[Decision, ...]] = ("PASS", "REVIEW", "REJECT")
# The decision that is a mistake, by what the part is.
_WRONG: Final[Mapping[Verdict, Decision]] = {"good": "REJECT", "defect": "PASS"}

CONFIDENCE = 0.95
# Enough for the limits' own error to be a tenth of a percent of probability; the same draws every time.
_DRAWS = 40_000

# By the decision that was taken and the one that other thresholds give: how many inspections there are, and
# how many of them were reviewed with a verdict.
Projection = Mapping[tuple[Decision, Decision], tuple[int, int]]


class DecisionCell(NamedTuple):
    """The inspections with one decision, and the reviewed parts of one verdict among them, on two sides.

    Attributes:
        inspections: how many there are.
        reviewed: how many of them were reviewed, with any verdict.
        inside: of the parts counted, those that get the wrong decision; None where none can.
        outside: those that do not; None where there can be none.
    """

    inspections: int
    reviewed: int
    inside: int | None
    outside: int | None


def estimate_overkill(counts: Mapping[Decision, DecisionCounts]) -> Rate:
    """The share of good parts that are rejected."""
    return estimate_rate(counts, "good")


def estimate_escape(counts: Mapping[Decision, DecisionCounts]) -> Rate:
    """The share of defective parts that pass."""
    return estimate_rate(counts, "defect")


def estimate_rate(
    counts: Mapping[Decision, DecisionCounts], verdict: Verdict, projection: Projection | None = None
) -> Rate:
    """The share of the parts with a verdict that get the wrong decision.

    Args:
        counts: by the decision that was taken; all three.
        verdict: what the parts are.
        projection: where other thresholds put the inspections; by default where they were put.
    """
    found = {d: getattr(one, f"reviewed_{verdict}") for d, one in counts.items()}
    reason = _unknown(counts, found, verdict)
    if reason is not None:
        return Rate(value=None, low=None, high=None, reason=reason)
    if projection is None:
        projection = {(d, d): (one.inspections, found[d]) for d, one in counts.items()}
    cells = []
    for taken, one in counts.items():
        # A side on which no inspection of this decision lies can have no part; with no inspection at all,
        # one more would have been where it was decided to be.
        sides: dict[bool, int | None] = {True: None, False: None}
        for given in DECISIONS:
            n, parts = projection.get((taken, given), (0, 0))
            if n or (taken == given and not one.inspections):
                side = given == _WRONG[verdict]
                sides[side] = (sides[side] or 0) + parts
        cells.append(DecisionCell(one.inspections, one.reviewed, sides[True], sides[False]))
    return _share(tuple(cells))


def _unknown(
    counts: Mapping[Decision, DecisionCounts], found: Mapping[Decision, int], verdict: Verdict
) -> str | None:
    """Why a rate of parts with a verdict cannot be known; None where it can."""
    if not any(one.inspections for one in counts.values()):
        return "there are no inspections"
    missing = [(d, one.inspections) for d, one in counts.items() if one.inspections and not one.reviewed]
    if missing:
        return f"nothing was reviewed of {', '.join(f'the {n} with decision {d}' for d, n in missing)}"
    return None if any(found.values()) else f"no part was reviewed as {verdict}"


@lru_cache(maxsize=1024)
def _share(cells: tuple[DecisionCell, ...]) -> Rate:
    """The share of the counted parts that are inside, weighted by inspections; there is a counted part."""
    weights = [cell.inspections / cell.reviewed if cell.reviewed else 0.0 for cell in cells]
    inside = sum(w * (cell.inside or 0) for w, cell in zip(weights, cells, strict=True))
    outside = sum(w * (cell.outside or 0) for w, cell in zip(weights, cells, strict=True))
    rng = np.random.default_rng(0)
    least, most = _drawn(rng, cells, "outside"), _drawn(rng, cells, "inside")
    tail = (1 - CONFIDENCE) / 2
    low, high = float(np.quantile(least, tail)), float(np.quantile(most, 1 - tail))
    return Rate(value=inside / (inside + outside), low=low, high=high, reason=None)


def _drawn(
    rng: np.random.Generator, cells: Iterable[DecisionCell], widened: Literal["inside", "outside"]
) -> NDArray[np.float64]:
    """Draws of the share where one side of every decision is as large as its reviews allow.

    Of n reviewed ones, x are inside and y outside: the shares of both are drawn from the Dirichlet law whose
    parameters are the counts, with one more on the side that is widened. Where only one side is possible that
    is Beta(x, n - x + 1), or Beta(x + 1, n - x).
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
