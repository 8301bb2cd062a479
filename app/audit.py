"""The audit log: every administrative act, who did it, to what, and what became of it."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import Connection, insert, select

from app.access import Caller
from app.database import clock
from app.database.engine import Database
from app.database.tables import audit
from app.feed import new_events
from app.feed.log import append

logger = logging.getLogger("flowgauge.audit")

# An act that was begun and never ended was cut off: nobody knows what became of it.
Outcome = Literal["begun", "done", "refused"]

# What the columns hold; a target comes from a path, which may be longer.
_LONGEST: Final = 256


@dataclass(frozen=True)
class Entry:
    """An act.

    Attributes:
        number: counts up; later acts have greater ones.
        created_ms: when, in milliseconds since 1970, UTC.
        actor: the key's id and name; "anonymous" where no key was asked for; "command line".
        role: the actor's role at that time.
        action: such as model.activate.
        target: such as bottle/20261125T011500-3f9a2c.
        outcome: whether it was begun, done or refused.
        detail: what else there is to know, such as old and new values; of an end, the number of its begin.
        request_id: of the request that asked for it; leads to the server's log.
    """

    number: int
    created_ms: int
    actor: str
    role: str | None
    action: str
    target: str
    outcome: Outcome
    detail: dict[str, Any]
    request_id: str | None


class Audit:
    """Writes and reads the audit log. Nothing in the service changes or deletes an entry."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def write(
        self,
        caller: Caller,
        action: str,
        target: str,
        outcome: Outcome,
        detail: Mapping[str, Any] | None = None,
        request_id: str | None = None,
    ) -> int:
        """Add an entry, and a line to the log; gives the entry's number.

        Args:
            caller: who does it.
            action: such as model.activate.
            target: such as bottle/20261125T011500-3f9a2c; longer than 256 characters, it is cut.
            outcome: whether it is begun, or was done or refused.
            detail: what else there is to know, as JSON. Never a secret.
            request_id: of the request that asked for it.
        """
        with self._database.write() as connection:
            return self.add(connection, caller, action, target, outcome, detail, request_id)

    def add(
        self,
        connection: Connection,
        caller: Caller,
        action: str,
        target: str,
        outcome: Outcome,
        detail: Mapping[str, Any] | None = None,
        request_id: str | None = None,
    ) -> int:
        """Add an entry as `write` does, in the transaction that the act itself is part of."""
        created_ms = clock.now_ms()
        values = {
            "created_ms": created_ms,
            "actor": _plain(caller.actor),
            "role": caller.role.value,
            "action": action,
            "target": _plain(target),
            "outcome": outcome,
            "detail": json.dumps(dict(detail)) if detail else None,
            "request_id": request_id,
        }
        added = connection.execute(insert(audit).values(values).returning(audit.c.number))
        if outcome == "done":
            append(connection, new_events.done(action, target, detail or {}, created_ms))
        # %r, as names are free text: none of them may look like a line of the log.
        logger.info("%s %r by %r: %s", action, values["target"], values["actor"], outcome)
        number: int = added.scalar_one()
        return number

    def page(
        self, limit: int, before: int | None = None, action: str | None = None, target: str | None = None
    ) -> list[Entry]:
        """Read entries, the latest first.

        Args:
            limit: how many at most.
            before: only those with smaller numbers: the last one of the page before.
            action: only this action.
            target: only this target.
        """
        query = select(audit).order_by(audit.c.number.desc()).limit(limit)
        if before is not None:
            query = query.where(audit.c.number < before)
        if action is not None:
            query = query.where(audit.c.action == _plain(action))
        if target is not None:
            query = query.where(audit.c.target == _plain(target))
        with self._database.read() as connection:
            rows = connection.execute(query).mappings().all()
        return [Entry(**{**row, "detail": json.loads(row["detail"] or "{}")}) for row in rows]


def _plain(text: str) -> str:
    """A text that both databases take and that shows as it is: PostgreSQL has no NUL and no surrogates."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text[:_LONGEST])
