"""Administrative acts of requests, which go to the audit log whatever becomes of them."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request

from app.access import SERVER, Caller
from app.audit import Audit
from app.problems import Problem

logger = logging.getLogger("flowgauge.audit")


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


class Observer:
    """Notes in the audit log which version serves from when on, whoever has activated it.

    A training container, say, activates what it publishes, and nobody has asked this service for it.

    Args:
        audit: the log.
    """

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._writing: set[asyncio.Task[None]] = set()

    def serves(self, category: str, version: str, sha256: str, previous: str | None) -> None:
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
