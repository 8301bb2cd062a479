"""The audit log: every administrative act, who did it, to what, and what became of it."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, nullcontext
from typing import Any, Final

from fastapi import Request
from sqlalchemy import Connection, insert, select

from app.auth.access import SERVER, Caller
from app.database import clock
from app.database.engine import Database
from app.database.tables import audit
from app.errors.problems import Problem
from app.events import new_events
from app.events.log import append
from app.schemas.access import AuditEntry, Outcome

logger = logging.getLogger("flowgauge.audit")

# What the columns hold; a target comes from a path, which may be longer.
_LONGEST: Final = 256


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
        connection: Connection | None = None,
    ) -> int:
        """Add an entry, and a line to the log; gives the entry's number.

        Args:
            caller: who does it.
            action: such as model.activate.
            target: such as bottle/20261125T011500-3f9a2c; longer than 256 characters, it is cut.
            outcome: whether it is begun, or was done or refused.
            detail: what else there is to know, as JSON. Never a secret.
            request_id: of the request that asked for it.
            connection: of the transaction that the act itself is part of; None for one of its own.
        """
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
        with self._database.write() if connection is None else nullcontext(connection) as used:
            added = used.execute(insert(audit).values(values).returning(audit.c.number))
            number: int = added.scalar_one()
            if outcome == "done":
                append(used, new_events.act_events(action, target, detail or {}, created_ms))
        # %r, as names are free text: none of them may look like a line of the log.
        logger.info("%s %r by %r: %s", action, values["target"], values["actor"], outcome)
        return number

    def page(
        self, limit: int, before: int | None = None, action: str | None = None, target: str | None = None
    ) -> list[AuditEntry]:
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
        return [_entry(row) for row in rows]


@asynccontextmanager
async def audited(
    request: Request, action: str, target: str, known: Mapping[str, Any] | None = None
) -> AsyncIterator[dict[str, Any]]:
    """Do an act inside this context. Its begin is written down before: no act without an entry.

    Args:
        request: what asks for it.
        action: such as model.activate.
        target: such as bottle/20261125T011500-3f9a2c.
        known: details, JSON, that are known before.

    Yields:
        The detail to be logged at the end, JSON; what is refused gets `problem`, and `refusal` says why.

    Raises:
        DatabaseUnavailable: nothing can be written down, so nothing was done.
    """
    audit: Audit = request.app.state.audit
    caller: Caller = request.state.caller
    request_id = request.state.request_id
    begun = await asyncio.to_thread(audit.write, caller, action, target, "begun", known, request_id)
    detail: dict[str, Any] = {"begun": begun, **(known or {})}
    try:
        yield detail
    except Exception as error:
        # Of what nobody expected the log of the server has more, under the request's id.
        detail["problem"] = error.name if isinstance(error, Problem) else type(error).__name__
        if isinstance(error, Problem):
            detail["refusal"] = error.detail
        await asyncio.to_thread(audit.write, caller, action, target, "refused", detail, request_id)
        raise
    await asyncio.to_thread(audit.write, caller, action, target, "done", detail, request_id)


class ServingObserver:
    """Notes in the audit log which version serves from when on, whoever has activated it.

    A training container, say, activates what it publishes, and nobody has asked this service for it.

    Args:
        audit: the log.
    """

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._writing: set[asyncio.Task[None]] = set()

    def record(self, category: str, version: str, sha256: str, previous: str | None) -> None:
        """Note that requests get a version from now on; in the event loop."""
        detail = {"sha256": sha256, "previous": previous}
        task = asyncio.create_task(self._write(f"{category}/{version}", detail))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def close(self) -> None:
        """Wait for what is being written."""
        await asyncio.gather(*self._writing)

    async def _write(self, target: str, detail: Mapping[str, Any]) -> None:
        try:
            await asyncio.to_thread(self._audit.write, SERVER, "model.serves", target, "done", detail)
        except Exception:  # every inspection has its version all the same
            logger.exception("model.serves %s could not be written down", target)


def _entry(row: Mapping[Any, Any]) -> AuditEntry:
    detail = json.loads(row["detail"] or "{}")
    return AuditEntry(**{**row, "created": clock.iso(row["created_ms"]), "detail": detail})


def _plain(text: str) -> str:
    """A text that both databases take and that shows as it is: PostgreSQL has no NUL and no surrogates."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text[:_LONGEST])
