"""Whether pictures that people reviewed as good are a fair draw of good parts: calibrations need one.

Of good parts that were chosen at random a share a has a p-value of at most a, about: of m pictures that were
inspected by one calibration of n pictures BetaBinomial(m, l, n + 1 - l) have, l = floor(a (n + 1)), as in
`flows.fastflow.conformal.false_reject_band`. Pictures of several calibrations have the sum of such counts,
whose law is the convolution of theirs. So each picture is judged by the p-value that was recorded with it,
whatever rates and thresholds were in force.
"""

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from app.calibration_pictures import Picture, Recorded
from app.database.engine import Database
from app.database.tables import inspections
from flows.fastflow.conformal import Threshold, rank

FALSE_WARNINGS: Final = 0.01  # the chance of a warning where pictures are a fair draw, at most
_FEWEST: Final = 3  # rejected pictures, below which nothing is said of too many
_PAGE: Final = 500
_COLUMNS: Final = inspections.columns


def recall(database: Database, pictures: Sequence[Picture]) -> list[Picture]:
    """The same pictures, those of the history with what was recorded of them when they were inspected."""
    ids = [picture.inspection_id for picture in pictures if picture.inspection_id is not None]
    found: dict[str | None, Recorded | None] = {}
    for start in range(0, len(ids), _PAGE):
        rows = select(_COLUMNS.id, _COLUMNS.p_value, _COLUMNS.answer).where(
            _COLUMNS.id.in_(ids[start : start + _PAGE])
        )
        with database.read() as connection:
            found |= {row.id: _recorded(row.p_value, row.answer) for row in connection.execute(rows)}
    return [replace(picture, recorded=found.get(picture.inspection_id)) for picture in pictures]


def unfair(pictures: Sequence[Picture], reject: Threshold, review_fpr: float | None) -> str | None:
    """A warning where reviewed pictures are hardly a fair draw of good parts, or None.

    More that score high than chance lets expect say that people review what stands out; fewer, that they
    review what was passed. Of fair draws at most `FALSE_WARNINGS` are warned of, if the calibrations of their
    time were fair themselves. Fewer say nothing where a region of interest lowered scores, or a cross
    calibration promised more than is seen. Pictures of which nothing was recorded are judged by their
    decision, and too few of them say nothing.

    Args:
        pictures: those to calibrate with, from `recall`.
        reject: the rate that is set, and the calibration that decided where nothing else is known.
        review_fpr: share of good parts that are rejected or in the review band; None where there is none.
    """
    looks: list[tuple[float, str, tuple[str, ...]]] = [(reject.target_fpr, "rejected", ("REJECT",))]
    if review_fpr is not None:
        looks.append((review_fpr, "rejected or sent to review", ("REJECT", "REVIEW")))
    tail = FALSE_WARNINGS / len(looks) / 2
    drawn = [picture for picture in pictures if picture.data is None]
    for rate, how, decisions in looks:
        groups = _groups(drawn, reject, rate, decisions)
        seen, n = sum(group.seen for group in groups), sum(group.count for group in groups)
        most = _most(groups, tail)
        if seen >= _FEWEST and seen > most:
            return (
                f"{seen} of {n} reviewed images {_were(groups, how, rate)}: by chance it is at most {most}. "
                "Good parts that stand out are reviewed more often than others, so the threshold is higher "
                "than it need be, and lets more defects pass; or good parts look otherwise now than in the "
                "calibration of their time. Review parts drawn at random."
            )
        exact = [group for group in groups if group.exact]
        seen, n = sum(group.seen for group in exact), sum(group.count for group in exact)
        least = _least(exact, tail)
        if seen < least:
            return (
                f"Only {seen} of {n} reviewed images {_were(exact, how, rate)}: by chance it is at "
                f"least {least}. Good parts that stand out are reviewed less often than others, so the "
                "threshold is too low, and more good parts are rejected than is promised; or good parts look "
                "otherwise now than in the calibration of their time. Review parts drawn at random, rejected "
                "ones among them."
            )
    return None


@dataclass(frozen=True)
class _Group:
    """Pictures that one calibration judged.

    Attributes:
        count: how many.
        seen: how many of them are past the rate.
        past, within: of the Beta law of the share of good parts that are past it; `within` is 0 where
            nothing is promised.
        recorded: whether their p-values are known.
        exact: whether that law holds for too few as well.
    """

    count: int
    seen: int
    past: float
    within: float
    recorded: bool
    exact: bool

    def law(self) -> NDArray[np.float64]:
        """(count + 1,) chances of each number of pictures past the rate."""
        from scipy.stats import betabinom  # takes a second, which serving need not wait for

        numbers = np.arange(self.count + 1)
        if self.within == 0:
            return np.asarray(numbers == self.count, dtype=np.float64)
        return np.asarray(betabinom.pmf(numbers, self.count, self.past, self.within), dtype=np.float64)


def _groups(
    drawn: Sequence[Picture], reject: Threshold, rate: float, decisions: Sequence[str]
) -> list[_Group]:
    by_calibration: defaultdict[tuple[Any, ...], list[Picture]] = defaultdict(list)
    for picture in drawn:
        by = picture.recorded
        key = () if by is None else (by.calibration, by.n_calibration, by.promised, by.lowered)
        by_calibration[key].append(picture)
    groups = []
    for some in by_calibration.values():
        by = some[0].recorded
        n = reject.n_calibration if by is None else by.n_calibration
        # Few pictures cannot promise what was asked for: what is above all of them is rejected.
        past: float = max(rank(n, rate), 1)
        if by is None:
            promised = reject.achievable_fpr if reject.guarantee == "cross" else None
            seen = sum(picture.decision in decisions for picture in some)
        else:
            promised = by.promised
            # A p-value is a whole number of (n + 1)ths, but for the last digit.
            values = [one.recorded.p_value * (n + 1) for one in some if one.recorded is not None]
            seen = sum(value <= past + 1e-6 for value in values)
        if promised is not None:
            past = min(max(promised, rate), 1.0) * (n + 1)
        exact = by is not None and promised is None and not by.lowered
        groups.append(_Group(len(some), seen, past, n + 1 - past, by is not None, exact))
    return groups


def _most(groups: Sequence[_Group], tail: float) -> int:
    """The number that at most a share `tail` of all fair draws exceed."""
    return int(np.searchsorted(np.cumsum(_law(groups)), 1 - tail))


def _least(groups: Sequence[_Group], tail: float) -> int:
    """The number that less than a share `tail` of all fair draws stay below."""
    return int(np.searchsorted(np.cumsum(_law(groups)), tail))


def _law(groups: Sequence[_Group]) -> NDArray[np.float64]:
    """The chances of each number of pictures past the rate, over all groups."""
    law = np.ones(1)
    for group in groups:
        law = np.convolve(law, group.law())
    return law


def _were(groups: Sequence[_Group], how: str, rate: float) -> str:
    if any(group.recorded for group in groups):
        return f"are {how} at {rate:.4g} by the calibration of their time"
    return f"had been {how}"


def _recorded(p_value: float, answer: str) -> Recorded | None:
    """What a kept answer says of its calibration; None of one that does not say enough."""
    try:
        told = json.loads(answer)
        threshold = told["threshold"]
        n, promised = int(threshold["n_calibration"]), float(threshold["achievable_fpr"])
        cross = threshold.get("guarantee", "split") == "cross"
        used = threshold.get("calibration") or {}
        region = (told.get("settings") or {}).get("region")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    if n < 1 or not math.isfinite(promised):
        return None
    return Recorded(
        p_value=p_value,
        calibration=str(used.get("id")),
        n_calibration=n,
        promised=promised if cross else None,
        lowered=region is not None,
    )
