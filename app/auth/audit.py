"""The audit log: each administrative action with its actor, target and outcome."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, nullcontext
from typing import Any, Final

from fastapi import Request
from sqlalchemy import Connection, insert, select

from app.auth.permissions import SERVER, Caller
from app.database import clock, locks
from app.database.engine import Database
from app.database.tables import audit
from app.errors.problems import Problem
from app.events import new_events
from app.events.log import append
from app.schemas.access import AuditEntry, Outcome

logger = logging.getLogger("flowgauge.audit")

# Width of the columns. A target comes from a path, which may be longer.
_MAX_LENGTH: Final = 256


class Audit:
    """The audit log in the database. Entries are never changed or deleted."""

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
        """Add an entry, log a line, and return the entry's number.

        Args:
            action: such as model.activate.
            target: such as bottle/20261125T011500-3f9a2c; cut to 256 characters.
            detail: further facts, JSON. Never a secret.
            connection: a transaction that the action is part of; None to use a new one.
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
        # %r, because names are free text: none may look like a line of the log.
        logger.info("%s %r by %r: %s", action, values["target"], values["actor"], outcome)
        return number

    def write_serving(self, target: str, detail: Mapping[str, Any]) -> None:
        """Add an entry that a version serves, unless another server has just added it."""
        category, _, _ = target.partition("/")
        of_category = audit.c.target.startswith(f"{category}/", autoescape=True)
        query = select(audit.c.target).where(audit.c.action == "model.serves", of_category)
        with self._database.write() as connection:
            locks.take(connection, locks.MODELS, f"{category} serves")
            last = connection.scalar(query.order_by(audit.c.number.desc()).limit(1))
            if self._database.is_sqlite or last != _plain(target):  # with SQLite there is one server
                self.write(SERVER, "model.serves", target, "done", detail, connection=connection)

    def actions(self) -> list[str]:
        """Read the names of all actions in the log, sorted."""
        with self._database.read() as connection:
            return sorted(connection.scalars(select(audit.c.action).distinct()))

    def page(
        self, limit: int, before: int | None = None, action: str | None = None, target: str | None = None
    ) -> list[AuditEntry]:
        """Read entries below a number, of an action and of a target, the latest first."""
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
    """Record an action: its start before the body runs, and its end afterwards.

    Yields:
        Details for the final entry, JSON, with the known ones. A refused action gets `problem`, and `refusal`
        with the reason.

    Raises:
        DatabaseUnavailable: the start cannot be recorded; the body has not run.
    """
    audit: Audit = request.app.state.audit
    caller: Caller = request.state.caller
    request_id = request.state.request_id
    begun = await asyncio.to_thread(audit.write, caller, action, target, "begun", known, request_id)
    detail: dict[str, Any] = {"begun": begun, **(known or {})}
    try:
        yield detail
    except Exception as error:
        # The server's log has the traceback of an unexpected error, under the request id.
        detail["problem"] = error.name if isinstance(error, Problem) else type(error).__name__
        if isinstance(error, Problem):
            detail["refusal"] = error.detail
        await asyncio.to_thread(audit.write, caller, action, target, "refused", detail, request_id)
        raise
    await asyncio.to_thread(audit.write, caller, action, target, "done", detail, request_id)


class ServingObserver:
    """Records in the audit log when another version begins to serve, whoever activated it.

    A training container, for example, activates the version it publishes without a request to this service.
    """

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._writing: set[asyncio.Task[None]] = set()

    def record(self, category: str, version: str, sha256: str, previous: str | None) -> None:
        """Record that a version serves from now on. Called in the event loop."""
        detail = {"sha256": sha256, "previous": previous}
        task = asyncio.create_task(self._write(f"{category}/{version}", detail))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def close(self) -> None:
        """Wait for pending entries."""
        await asyncio.gather(*self._writing)

    async def _write(self, target: str, detail: Mapping[str, Any]) -> None:
        try:
            await asyncio.to_thread(self._audit.write_serving, target, detail)
        except Exception:  # not fatal: each inspection names its version
            logger.exception("cannot record model.serves %s in the audit log", target)


def _entry(row: Mapping[Any, Any]) -> AuditEntry:
    detail = json.loads(row["detail"] or "{}")
    return AuditEntry(**{**row, "created": clock.iso(row["created_ms"]), "detail": detail})


def _plain(text: str) -> str:
    """Replace characters that are not printable: PostgreSQL refuses NUL and surrogates."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text[:_MAX_LENGTH])
