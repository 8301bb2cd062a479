"""What other thresholds would have done to the inspections that were made.

The latest inspections have their score and their decision, so how another threshold would have decided is
known exactly. Whether that would have been right is known of reviewed ones alone. They were drawn by the
decision that was taken, not by the one that would have been: so parts are weighted within the decision that
was taken, as in app/history/rates.py, and counted on the side where they would have been. For thresholds that
were in force all the time the rates are those of `rates`.

The database counts: one pass over so many rows at most as are asked for, whatever the thresholds' number.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, case, func, select

from app.database.clock import time_of
from app.database.tables import inspections
from app.history import rates
from app.history.queries import elsewhere
from app.history.rates import DECISIONS, Cell, Stratum
from app.history.reports import Span
from app.schemas.history import Verdict
from app.schemas.predict import Decision
from app.schemas.reports import Rate
from flows.fastflow.manifest import Precision

_COLUMNS: Final = inspections.columns
# The decision that is a mistake, by what the part is.
_WRONG: Final[Mapping[Verdict, Decision]] = {"good": "REJECT", "defect": "PASS"}


@dataclass(frozen=True)
class Limits:
    """A position of the thresholds: REJECT above `reject`, else REVIEW above `review`; None for no band."""

    reject: float
    review: float | None


@dataclass(frozen=True)
class Kept:
    """Which inspections are looked at.

    Attributes:
        category: theirs.
        version: the version that scored them; scores of others mean something else.
        precision: of the engine that scored them, likewise.
        span: the time.
        last: how many at most, the latest of the category; those of other versions, engines or stations
            among them are left out.
        station: of this one alone; None for all.
        without: stations that are left out, because they have a calibration of their own.
    """

    category: str
    version: str
    precision: Precision
    span: Span
    last: int
    station: str | None = None
    without: Collection[str] = ()


@dataclass(frozen=True)
class Would:
    """What a position would have done.

    Attributes:
        decisions: how many inspections would have had which decision.
        changes: by the decision that was taken and the one that would have been, how many; only where the two
            differ and there are any.
        overkill: P(REJECT | good).
        escape: P(PASS | defect).
    """

    decisions: Mapping[Decision, int]
    changes: Mapping[tuple[Decision, Decision], int]
    overkill: Rate
    escape: Rate


@dataclass(frozen=True)
class Seen:
    """What was inspected, and what other positions would have done to it.

    Attributes:
        strata: as they were decided.
        first_ms: when the oldest of them was made, in milliseconds since 1970, UTC; None without any.
        positions: as asked for, in their order.
    """

    strata: Mapping[Decision, Stratum]
    first_ms: int | None
    positions: Sequence[Would]


# By decision and verdict (None: not reviewed): how many there are, and how many score above each threshold.
_Counts = Mapping[tuple[Decision, Verdict | None], tuple[int, Mapping[float, int]]]


def look(connection: Connection, kept: Kept, positions: Sequence[Limits]) -> Seen:
    """Count what was inspected, and what each position would have done to it."""
    scores = sorted({s for one in positions for s in (one.reject, one.review) if s is not None})
    counts, first = _count(connection, kept, scores)
    taken = {
        d: Stratum(
            sum(n for (decision, _), (n, _) in counts.items() if decision == d),
            good=counts.get((d, "good"), (0, {}))[0],
            defect=counts.get((d, "defect"), (0, {}))[0],
        )
        for d in DECISIONS
    }
    first_ms = None if first is None else time_of(first)
    return Seen(taken, first_ms, [_would(taken, counts, position) for position in positions])


def _count(connection: Connection, kept: Kept, scores: Sequence[float]) -> tuple[_Counts, str | None]:
    columns = ("id", "version", "precision", "station", "decision", "verdict", "score")
    latest = (
        select(*(_COLUMNS[name] for name in columns))
        .where(*kept.span.conditions_for(kept.category, kept.station))
        .order_by(_COLUMNS.id.desc())
        .limit(kept.last)
        .subquery()
        .c
    )
    # Outside of the limit: looking for rows that are rare must not read the whole history.
    query = select(
        latest.decision,
        latest.verdict,
        func.count(),
        func.min(latest.id),
        *(func.sum(case((latest.score > score, 1), else_=0)) for score in scores),
    ).where(
        latest.version == kept.version,
        latest.precision == kept.precision,
    )
    if kept.without:
        query = query.where(elsewhere(latest.station, kept.without))
    rows = connection.execute(query.group_by(latest.decision, latest.verdict)).all()
    counts: dict[tuple[Decision, Verdict | None], tuple[int, Mapping[float, int]]] = {}
    for decision, verdict, n, _, *above in rows:
        counts[decision, verdict] = n, dict(zip(scores, map(int, above), strict=True))
    return counts, min((row[3] for row in rows), default=None)


def _would(taken: Mapping[Decision, Stratum], counts: _Counts, position: Limits) -> Would:
    """What a position would have done."""
    moved: dict[tuple[Decision, Decision], int] = {}
    verdicts: dict[tuple[Verdict, Decision, Decision], int] = {}
    for (before, verdict), (n, above) in counts.items():
        rejected = above[position.reject]
        flagged = rejected if position.review is None else above[position.review]
        would: dict[Decision, int] = {"PASS": n - flagged, "REVIEW": flagged - rejected, "REJECT": rejected}
        for after, count in would.items():
            moved[before, after] = moved.get((before, after), 0) + count
            if verdict is not None:
                verdicts[verdict, before, after] = count
    rate: dict[Verdict, Rate] = {}
    for verdict, wrong in _WRONG.items():
        found = {(before, after): n for (v, before, after), n in verdicts.items() if v == verdict}
        rate[verdict] = _rate(taken, moved, found, verdict, wrong)
    return Would(
        {d: sum(n for (_, after), n in moved.items() if after == d) for d in DECISIONS},
        {pair: n for pair, n in moved.items() if n and pair[0] != pair[1]},
        rate["good"],
        rate["defect"],
    )


def _rate(
    taken: Mapping[Decision, Stratum],
    moved: Mapping[tuple[Decision, Decision], int],
    found: Mapping[tuple[Decision, Decision], int],
    verdict: Verdict,
    wanted: Decision,
) -> Rate:
    """The share of the parts with a verdict that would have had the decision `wanted`."""
    reason = rates.unknown(taken, verdict)
    if reason is not None:
        return Rate(value=None, low=None, high=None, reason=reason)
    cells = []
    for before, stratum in taken.items():
        # A side on which no inspection of this decision lies can have no part; with no inspection at all,
        # one more would have been where it was decided to be.
        natural = {(before, before)} if not stratum.inspections else set()
        sides: dict[bool, int | None] = {True: None, False: None}
        for after in DECISIONS:
            side = after == wanted
            if moved.get((before, after)) or (before, after) in natural:
                sides[side] = (sides[side] or 0) + found.get((before, after), 0)
        cells.append(Cell(stratum.inspections, stratum.reviewed, sides[True], sides[False]))
    return rates.share(tuple(cells))
