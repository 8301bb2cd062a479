"""What was changed about a category's models and decisions, and when, by the audit log."""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, or_, select

from app.database.tables import audit
from app.history.reports import Span

THRESHOLDS: Final = "model.thresholds"
REGION: Final = "model.region"
CALIBRATION: Final = "model.calibrate"
# Requests get a version from then on, whoever has activated it.
SERVES: Final = "model.serves"
_SWITCHES: Final = ("model.activate", "model.rollback")
# What decides otherwise from then on.
ACTIONS: Final = (THRESHOLDS, REGION, CALIBRATION, *_SWITCHES)
# What writes into the folder of a category.
WRITING: Final = (*ACTIONS, "model.upload", "model.delete")


@dataclass(frozen=True)
class Act:
    """An entry of the audit log, see `app.audit.Entry`: the begin of an act, or its end, which names that."""

    number: int
    action: str
    outcome: str
    created_ms: int
    detail: Mapping[str, Any]


def changes(
    connection: Connection, span: Span, categories: Collection[str] | None, limit: int
) -> list[dict[str, Any]]:
    """What was changed in a time and came to its end, the earliest first, as rows of the audit log.

    That another version serves (`SERVES`) is one of them where none of the others says so: a training, say,
    activates what it publishes without asking this service.

    Args:
        connection: where to read.
        span: the time.
        categories: the only ones wanted; None for all.
        limit: how many at most, of more the latest.
    """
    wanted = [
        audit.c.created_ms >= span.from_ms,
        audit.c.created_ms < span.to_ms,
        audit.c.action.in_((*ACTIONS, SERVES)),
        audit.c.outcome == "done",
    ]
    if categories is not None:
        wanted.append(_of(categories))
    query = select(audit).where(*wanted).order_by(audit.c.number.desc())
    rows = (dict(row) for row in connection.execute(query).mappings().all())
    return list(islice(_told_once(connection, rows), limit))[::-1]


def _told_once(connection: Connection, rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows without those of `SERVES` by which nothing changed, or what changed is told by another row."""
    for row in rows:
        if row["action"] == SERVES:
            previous = _replaced(connection, row)
            if previous is None:
                continue
            row["detail"] = json.dumps({**detail(row), "previous": previous})
        yield row


def _replaced(connection: Connection, row: Mapping[str, Any]) -> str | None:
    """The version that this one, which serves from now on, took the place of; None where an act tells it.

    An act that activates it lies between the last time that a version of the category began to serve and the
    next. What was activated while no server ran has no previous one of its own, but that last time names it.
    """
    category, _, version = row["target"].partition("/")
    served = select(audit.c.number, audit.c.target).where(audit.c.action == SERVES, _of([category]))
    number = audit.c.number
    before = connection.execute(served.where(number < row["number"]).order_by(number.desc())).first()
    after = connection.execute(served.where(number > row["number"]).order_by(number)).first()
    last = None if before is None else before.target.partition("/")[2]
    previous: str | None = detail(row).get("previous") or last
    if previous is None or previous == version:
        return None
    acts_between = select(audit).where(
        audit.c.action.in_(_SWITCHES),
        audit.c.outcome == "done",
        _of([category]),
        number > (0 if before is None else before.number),
    )
    if after is not None:
        acts_between = acts_between.where(number < after.number)
    for act in map(dict, connection.execute(acts_between).mappings()):
        _, switched = held(act["action"], act["target"], detail(act))
        if switched == {"version": version}:
            return None
    return previous


def changed_ms(connection: Connection, category: str, action: str) -> dict[str | None, int]:
    """When a category's regions of interest (`REGION`) or calibrations (`CALIBRATION`) were last changed.

    By station; None: that of all without one of their own. In milliseconds since 1970, of the latest thousand
    changes.
    """
    done = (
        select(audit.c.created_ms, audit.c.detail)
        .where(audit.c.action == action, audit.c.target == category, audit.c.outcome == "done")
        .order_by(audit.c.number.desc())
        .limit(1000)
    )
    found: dict[str | None, int] = {}
    for row in connection.execute(done).mappings():
        found.setdefault(detail(dict(row)).get("station"), row["created_ms"])
    return found


def acts(connection: Connection, category: str, limit: int = 200) -> list[Act]:
    """What wrote, or was to write, into the folder of a category, the latest first.

    Args:
        connection: where to read.
        category: whose.
        limit: how many at most.
    """
    columns = audit.c
    query = (
        select(columns.number, columns.action, columns.outcome, columns.created_ms, columns.detail)
        .where(columns.action.in_(WRITING), _of([category]))
        .order_by(columns.number.desc())
        .limit(limit)
    )
    rows = connection.execute(query).mappings()
    return [
        Act(row["number"], row["action"], row["outcome"], row["created_ms"], detail(dict(row)))
        for row in rows
    ]


def _of(categories: Collection[str]) -> ColumnElement[bool]:
    # A category's name has neither of LIKE's signs but _, which autoescape takes for itself.
    of_one = (audit.c.target.startswith(f"{name}/", autoescape=True) for name in categories)
    return or_(audit.c.target.in_(categories), *of_one)


def detail(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the audit log knows of an act beyond its columns."""
    found: dict[str, Any] = json.loads(row["detail"] or "{}")
    return found


def held(
    action: str, target: str, known: Mapping[str, Any]
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """What held before an act and what after it: rates, a threshold, a version, or whether a region."""
    if action == THRESHOLDS:
        before = known.get("from") or {}
        return dict(before), {**before, **(known.get("to") or {})}
    if action == REGION and "from" in known:
        before, after = ({"region": "set" if known.get(one) else "none"} for one in ("from", "to"))
        return before, after
    if action == CALIBRATION and "reject" in known:
        return {"reject": known["reject"].get("from")}, {"reject": known["reject"].get("to")}
    if action in (*_SWITCHES, SERVES):
        active = known.get("active") or target.partition("/")[2]
        return {"version": known.get("previous")}, {"version": active}
    return None, None
