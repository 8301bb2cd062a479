"""What was changed about a category's models and decisions, and when, by the audit log."""

import json
from collections.abc import Collection, Mapping
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, func, or_, select

from app.database.tables import audit
from app.history.decision_counts import TimeSpan

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


def find_changes(
    connection: Connection, span: TimeSpan, categories: Collection[str] | None, limit: int
) -> list[dict[str, Any]]:
    """What was changed in a time and came to its end, as rows of the audit log: the latest, in their order.

    That another version serves (`SERVES`) is one of them where none of the others says so: a training, say,
    activates what it publishes without asking this service.
    """
    during = audit.c.created_ms >= span.from_ms, audit.c.created_ms < span.to_ms
    acted = _acts(connection, ACTIONS, categories, *during)
    before = audit.c.action == SERVES, audit.c.created_ms < span.from_ms
    latest = select(func.max(audit.c.number)).where(*before).group_by(audit.c.target)
    last = dict[str, tuple[int, str]]()
    for row in _acts(connection, [SERVES], categories, audit.c.number.in_(latest)):
        category, _, version = row["target"].partition("/")
        last[category] = row["number"], version
    unannounced = []
    for row in _acts(connection, [SERVES], categories, *during):
        category, _, version = row["target"].partition("/")
        after, known = last.get(category, (0, None))
        last[category] = row["number"], version
        previous = parse_detail(row).get("previous") or known
        # Most are of models that were unloaded and loaded again.
        if previous not in (None, version) and not _is_told(connection, row, after):
            unannounced.append(row | {"detail": json.dumps({**parse_detail(row), "previous": previous})})
    return sorted((*acted, *unannounced), key=lambda row: int(row["number"]))[-limit:]


def _is_told(connection: Connection, row: Mapping[str, Any], after: int) -> bool:
    """Whether an act activates the version that began to serve.

    It lies between the last time that a version of the category began to serve and a few minutes after this.
    """
    category, _, version = row["target"].partition("/")
    near = audit.c.number > after, audit.c.created_ms < row["created_ms"] + _ACT_MS
    acts = _acts(connection, _SWITCHES, [category], *near)
    states = (before_and_after(act["action"], act["target"], parse_detail(act)) for act in acts)
    # One that activates what serves already tells nothing.
    return any(now == {"version": version} != was for was, now in states)


def _acts(
    connection: Connection,
    actions: Collection[str],
    categories: Collection[str] | None,
    *conditions: ColumnElement[bool],
) -> list[dict[str, Any]]:
    """Acts on some categories, or on all, that were done, in their order."""
    query = select(audit).where(audit.c.action.in_(actions), audit.c.outcome == "done", *conditions)
    if categories is not None:
        # A category's name has neither of LIKE's signs but _, which autoescape takes for itself.
        of_one = (audit.c.target.startswith(f"{name}/", autoescape=True) for name in categories)
        query = query.where(or_(audit.c.target.in_(categories), *of_one))
    return [dict(row) for row in connection.execute(query.order_by(audit.c.number)).mappings()]


def last_changed_ms(connection: Connection, category: str, actions: Collection[str]) -> int:
    """When one of some acts on a category was last done, in milliseconds since 1970; 0 for never."""
    done = (audit.c.target == category, audit.c.action.in_(actions), audit.c.outcome == "done")
    return connection.scalar(select(func.max(audit.c.created_ms)).where(*done)) or 0


def parse_detail(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the audit log knows of an act beyond its columns."""
    found: dict[str, Any] = json.loads(row["detail"] or "{}")
    return found


def before_and_after(
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
