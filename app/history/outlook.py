"""Projection of past inspections to other thresholds.

Stored scores show exactly how other thresholds would have decided. Only reviews show if these decisions would
be right, and reviews were sampled by the decision that was taken. So parts are weighted within the taken
decision, as in app/history/rates.py, and counted under the projected decision. For the thresholds in force
the result equals that of `rates`.

The database counts in one pass over a limited number of rows, whatever the number of thresholds.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, case, func, select
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from app.database import clock
from app.database.tables import inspections
from app.history.queries import InspectionFilter, is_elsewhere
from app.history.rates import DECISIONS, estimate_rate
from app.schemas.history import Verdict
from app.schemas.outlook import DecisionChange, ProjectedDecisions, Window
from app.schemas.predict import Decision
from app.schemas.reports import DecisionCounts
from flows.fastflow.manifest import Precision

_COLUMNS: Final = inspections.columns


class ThresholdPosition(NamedTuple):
    """Score thresholds: REJECT above `reject`, else REVIEW above `review`; None for no review band."""

    reject: float
    review: float | None


class _Group(NamedTuple):
    """Number of inspections with one decision and verdict, and of those above each threshold."""

    inspections: int
    above: Mapping[float, int]


# By taken decision and verdict; None: not reviewed.
_Groups = Mapping[tuple[Decision, Verdict | None], _Group]


def project(
    connection: Connection,
    where: InspectionFilter,
    version: str,
    precision: Precision,
    positions: Sequence[ThresholdPosition],
    *,
    last: int,
    without: Collection[str] = (),
) -> tuple[Window, list[ProjectedDecisions]]:
    """Count past decisions, and the decisions that each position would have given.

    Args:
        where: selects inspections of one category.
        version: model version; scores of other versions are not comparable.
        precision: precision of the engine; scores of others are not comparable.
        positions: thresholds to project to.
        last: number of the latest matching inspections to read.
        without: stations to exclude, because they have their own calibration.
    """
    scores = sorted({s for position in positions for s in position if s is not None})
    latest, comparable = _find_latest(where, version, precision, last, without)
    above = (func.sum(case((latest.score > score, 1), else_=0)) for score in scores)
    query = select(latest.decision, latest.verdict, func.count(), func.min(latest.id), *above)
    rows = connection.execute(query.where(*comparable).group_by(latest.decision, latest.verdict)).all()
    groups: dict[tuple[Decision, Verdict | None], _Group] = {}
    for decision, verdict, n, _, *counted in rows:
        groups[decision, verdict] = _Group(n, dict(zip(scores, map(int, counted), strict=True)))
    taken = {
        decision: DecisionCounts(
            inspections=sum(group.inspections for (d, _), group in groups.items() if d == decision),
            reviewed_good=groups.get((decision, "good"), _Group(0, {})).inspections,
            reviewed_defect=groups.get((decision, "defect"), _Group(0, {})).inspections,
        )
        for decision in DECISIONS
    }
    first = min((row[3] for row in rows), default=None)
    window = Window(
        from_=None if first is None else clock.iso(clock.id_to_ms(first)),
        inspections=sum(counts.inspections for counts in taken.values()),
        decisions=taken,
    )
    return window, [_projected(taken, groups, position) for position in positions]


def read_scores(
    connection: Connection,
    where: InspectionFilter,
    version: str,
    precision: Precision,
    *,
    last: int,
    without: Collection[str] = (),
) -> list[tuple[float, Verdict | None]]:
    """Read scores and verdicts of the latest inspections; arguments as for `project`."""
    latest, comparable = _find_latest(where, version, precision, last, without)
    query = select(latest.score, latest.verdict).where(*comparable).order_by(latest.id.desc())
    return [(score, verdict) for score, verdict in connection.execute(query)]


def _find_latest(
    where: InspectionFilter, version: str, precision: Precision, last: int, without: Collection[str]
) -> tuple[ReadOnlyColumnCollection[str, Any], list[ColumnElement[bool]]]:
    """Return the latest inspections, and the condition that their scores are comparable.

    The filter comes after the limit: a search for rare rows must not read the whole history.
    """
    columns = ("id", "version", "precision", "station", "decision", "verdict", "score")
    query = select(*(_COLUMNS[name] for name in columns)).where(*where.conditions())
    latest = query.order_by(_COLUMNS.id.desc()).limit(last).subquery().c
    comparable = [latest.version == version, latest.precision == precision]
    if without:
        comparable.append(is_elsewhere(latest.station, without))
    return latest, comparable


def _projected(
    taken: Mapping[Decision, DecisionCounts], groups: _Groups, position: ThresholdPosition
) -> ProjectedDecisions:
    moved: dict[tuple[Decision, Decision], int] = {}
    reviewed: dict[Verdict, dict[tuple[Decision, Decision], int]] = {"good": {}, "defect": {}}
    for (before, verdict), (n, above) in groups.items():
        rejected = above[position.reject]
        flagged = rejected if position.review is None else above[position.review]
        given: dict[Decision, int] = {"PASS": n - flagged, "REVIEW": flagged - rejected, "REJECT": rejected}
        for after, count in given.items():
            moved[before, after] = moved.get((before, after), 0) + count
            if verdict is not None:
                reviewed[verdict][before, after] = count
    rates = {
        verdict: estimate_rate(taken, verdict, {pair: (n, parts.get(pair, 0)) for pair, n in moved.items()})
        for verdict, parts in reviewed.items()
    }
    changes = [
        DecisionChange(taken=before, would=after, inspections=n)
        for (before, after), n in moved.items()
        if n and before != after
    ]
    return ProjectedDecisions(
        decisions={d: sum(n for (_, after), n in moved.items() if after == d) for d in DECISIONS},
        changed=sum(change.inspections for change in changes),
        changes=changes,
        overkill=rates["good"],
        escape=rates["defect"],
    )
