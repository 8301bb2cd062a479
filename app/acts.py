"""Administrative acts of requests, which go to the audit log whatever becomes of them."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final

from fastapi import Request

from app.access import SERVER, Caller
from app.audit import Audit
from app.database import clock
from app.database.engine import DatabaseUnavailable
from app.problems import Problem

logger = logging.getLogger("flowgauge.audit")

_AGAIN_SECONDS: Final = 5.0
_CLOSE_SECONDS: Final = 5.0


@asynccontextmanager
async def audited(
    request: Request,
    audit: Audit,
    caller: Caller,
    action: str,
    target: str,
    known: Mapping[str, Any] | None = None,
) -> AsyncIterator[dict[str, Any]]:
    """Do an act inside this context. Its begin is written down before: no act without an entry.

    Args:
        request: what asks for it.
        audit: the log.
        caller: who asks for it.
        action: such as model.activate.
        target: such as bottle/20261125T011500-3f9a2c.
        known: details, JSON, that are known before.

    Yields:
        The detail to be logged at the end, JSON; what is refused gets `problem`, and `refusal` says why.

    Raises:
        DatabaseUnavailable: nothing can be written down, so nothing was done.
    """
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

    A training container, say, activates what it publishes, and nobody has asked this service for it. What the
    database does not take waits for it, in order.

    Args:
        audit: the log.
    """

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._left: deque[tuple[str, Mapping[str, Any], int]] = deque()
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def serves(self, category: str, version: str, sha256: str, previous: str | None) -> None:
        """Note that requests get a version from now on; in the event loop."""
        detail = {"sha256": sha256, "previous": previous}
        self._left.append((f"{category}/{version}", detail, clock.now_ms()))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write())

    async def close(self) -> None:
        """Write what is left to be written, if the database takes it, and soon."""
        self._closing.set()
        if self._task is not None:
            await asyncio.wait((self._task,), timeout=_CLOSE_SECONDS)
        for target, *_ in self._left:
            logger.error("model.serves %s may not have been written down", target)

    async def _write(self) -> None:
        while self._left:
            target, detail, at_ms = self._left[0]
            write = partial(self._audit.write, SERVER, "model.serves", target, "done", detail, at_ms=at_ms)
            try:
                await asyncio.to_thread(write)
            except DatabaseUnavailable as error:
                if self._closing.is_set():
                    return
                logger.warning("model.serves %s waits to be written down: %s", target, error)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), _AGAIN_SECONDS)
                continue
            except Exception:  # every inspection has its version all the same
                logger.exception("model.serves %s could not be written down", target)
            self._left.popleft()
