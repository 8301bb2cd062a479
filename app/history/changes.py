"""Changes of a category's models and thresholds, read from the audit log."""

import json
from collections import defaultdict
from collections.abc import Collection, Mapping
from itertools import zip_longest
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, func, or_, select

from app.database.tables import audit
from app.history.decision_counts import TimeSpan

THRESHOLDS: Final = "model.thresholds"
REGION: Final = "model.region"
CALIBRATION: Final = "model.calibrate"
# From this entry on, requests get the version, no matter what activated it.
SERVES: Final = "model.serves"
_SWITCHES: Final = ("model.activate", "model.rollback")
# Actions that change later decisions.
ACTIONS: Final = (THRESHOLDS, REGION, CALIBRATION, *_SWITCHES)
# An activation is logged at most this long after its version began to serve.
_ACTION_MS: Final = 600_000


def find_changes(
    connection: Connection, span: TimeSpan, categories: Collection[str] | None, limit: int
) -> list[dict[str, Any]]:
    """Find the latest completed changes in a time span, as rows of the audit log in their order.

    A new serving version (`SERVES`) counts as a change if no activation announced it, also the first one of a
    category. For example, a training run activates its bundle without asking this service.
    """
    during = audit.c.created_ms >= span.from_ms, audit.c.created_ms < span.to_ms
    acted = _find_actions(connection, ACTIONS, categories, *during)
    before = audit.c.action == SERVES, audit.c.created_ms < span.from_ms
    latest = select(func.max(audit.c.number)).where(*before).group_by(audit.c.target)
    last = dict[str, tuple[int, str]]()
    for row in _find_actions(connection, [SERVES], categories, audit.c.number.in_(latest)):
        category, _, version = row["target"].partition("/")
        last[category] = row["number"], version
    unannounced = []
    served = defaultdict[str, list[dict[str, Any]]](list)
    for row in _find_actions(connection, [SERVES], categories, *during):
        served[row["target"].partition("/")[0]].append(row)
    for category, rows in served.items():
        start, known = last.get(category, (0, None))
        for row, following in zip_longest(rows, rows[1:]):
            version = row["target"].partition("/")[2]
            previous = parse_detail(row).get("previous") or known
            end = None if following is None else following["number"]
            # Most of these models were only unloaded and loaded again.
            if previous != version and not _is_announced(connection, row, start, end):
                unannounced.append(row | {"detail": json.dumps({**parse_detail(row), "previous": previous})})
            start, known = row["number"], version
    return sorted((*acted, *unannounced), key=lambda row: int(row["number"]))[-limit:]


def _is_announced(connection: Connection, row: Mapping[str, Any], start: int, end: int | None) -> bool:
    """Tell if an activation announced the version that began to serve.

    Such an activation lies between the previous and the next `SERVES` entry of the category, and at most a
    few minutes after this one.
    """
    category, _, version = row["target"].partition("/")
    near = [audit.c.number > start, audit.c.created_ms < row["created_ms"] + _ACTION_MS]
    if end is not None:
        near.append(audit.c.number < end)
    acts = _find_actions(connection, _SWITCHES, [category], *near)
    states = (before_and_after(act["action"], act["target"], parse_detail(act)) for act in acts)
    # Activating the version that serves already announces nothing.
    return any(now == {"version": version} != was for was, now in states)


def _find_actions(
    connection: Connection,
    actions: Collection[str],
    categories: Collection[str] | None,
    *conditions: ColumnElement[bool],
) -> list[dict[str, Any]]:
    """Find completed actions on some categories, or on all, in their order."""
    query = select(audit).where(audit.c.action.in_(actions), audit.c.outcome == "done", *conditions)
    if categories is not None:
        # Of LIKE's wildcards a category's name may hold only "_", which autoescape escapes.
        of_one = (audit.c.target.startswith(f"{name}/", autoescape=True) for name in categories)
        query = query.where(or_(audit.c.target.in_(categories), *of_one))
    return [dict(row) for row in connection.execute(query.order_by(audit.c.number)).mappings()]


def last_changed_ms(connection: Connection, category: str, actions: Collection[str]) -> int:
    """Return the time of the last of some actions on a category, in ms since 1970; 0 for never."""
    done = (audit.c.target == category, audit.c.action.in_(actions), audit.c.outcome == "done")
    return connection.scalar(select(func.max(audit.c.created_ms)).where(*done)) or 0


def parse_detail(row: Mapping[str, Any]) -> dict[str, Any]:
    """Parse the details of an audit log entry."""
    found: dict[str, Any] = json.loads(row["detail"] or "{}")
    return found


def before_and_after(
    action: str, target: str, known: Mapping[str, Any]
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return the state before and after an action: rates, threshold, version or region."""
    if action == THRESHOLDS:
        before = known.get("from") or {}
        return dict(before), {**before, **(known.get("to") or {})}
    if action == REGION and "from" in known:
        before, after = ({"region": "set" if known.get(state) else "none"} for state in ("from", "to"))
        return before, after
    if action == CALIBRATION and "reject" in known:
        return {"reject": known["reject"].get("from")}, {"reject": known["reject"].get("to")}
    if action in (*_SWITCHES, SERVES):
        active = known.get("active") or target.partition("/")[2]
        return {"version": known.get("previous")}, {"version": active}
    return None, None
