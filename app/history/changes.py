"""What was changed about a category's models and decisions, and when, by the audit log."""

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, func, or_, select

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
# An act is done so soon after the version that it activates began to serve.
_ACT_MS: Final = 600_000
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
    acted = select(audit).where(audit.c.action.in_(ACTIONS), *_during(span), *_done_of(categories))
    rows = connection.execute(acted.order_by(audit.c.number.desc()).limit(limit)).mappings()
    told = [*map(dict, rows), *_unannounced(connection, span, categories)]
    return sorted(told, key=lambda row: int(row["number"]))[-limit:]


def _unannounced(
    connection: Connection, span: Span, categories: Collection[str] | None
) -> list[dict[str, Any]]:
    """Of a time the rows of `SERVES` by which another version serves, where no act tells it.

    An act that activates it lies between the last time that a version of the category began to serve and the
    next. What was activated while no server ran has no previous one of its own, but that last time names it.
    """
    columns, done = audit.c, _done_of(categories)
    served = select(audit).where(columns.action == SERVES, *done)
    before = (
        select(func.max(columns.number), columns.target)
        .where(columns.action == SERVES, columns.created_ms < span.from_ms, *done)
        .group_by(columns.target)
    )
    # Of each category, when a version began to serve the last time, and which.
    last: dict[str, tuple[int, str]] = {}
    for number, target in sorted(tuple(row) for row in connection.execute(before)):
        category, _, version = target.partition("/")
        last[category] = number, version
    found: list[_Beginning] = []
    open_ended: dict[str, _Beginning] = {}
    for row in connection.execute(served.where(*_during(span)).order_by(columns.number)).mappings():
        category, _, version = row["target"].partition("/")
        after, known = last.get(category, (0, None))
        previous = detail(dict(row)).get("previous") or known
        last[category] = row["number"], version
        if (one := open_ended.pop(category, None)) is not None:
            one.until = row["number"]
        # Most are of models that were let go of and loaded again.
        if previous is not None and previous != version:
            open_ended[category] = _Beginning(dict(row), previous, after)
            found.append(open_ended[category])
    if not found:
        return []
    acted = select(audit).where(
        columns.action.in_(_SWITCHES), columns.created_ms < span.to_ms + _ACT_MS, *done
    )
    acts = [dict(row) for row in connection.execute(acted).mappings()]
    return [one.told() for one in found if not any(one.is_told_by(act) for act in acts)]


@dataclass
class _Beginning:
    """That another version of a category serves: its row, what it replaced, and between what acts tell it."""

    row: dict[str, Any]
    previous: str
    after: int
    until: float = math.inf

    def is_told_by(self, act: Mapping[str, Any]) -> bool:
        category, _, version = self.row["target"].partition("/")
        if act["target"].partition("/")[0] != category or not self.after < act["number"] < self.until:
            return False
        # One that activates what serves already tells nothing.
        was, now = held(act["action"], act["target"], detail(act))
        return now == {"version": version} != was

    def told(self) -> dict[str, Any]:
        return self.row | {"detail": json.dumps({**detail(self.row), "previous": self.previous})}


def _during(span: Span) -> list[ColumnElement[bool]]:
    return [audit.c.created_ms >= span.from_ms, audit.c.created_ms < span.to_ms]


def _done_of(categories: Collection[str] | None) -> list[ColumnElement[bool]]:
    done = [audit.c.outcome == "done"]
    return done if categories is None else [*done, _of(categories)]


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
