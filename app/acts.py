"""Administrative acts of requests, which go to the audit log whatever becomes of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request

from app.access import Caller
from app.audit import Audit
from app.problems import Problem


@asynccontextmanager
async def audited(
    request: Request, audit: Audit, caller: Caller, action: str, target: str
) -> AsyncIterator[dict[str, Any]]:
    """Do an act inside this context: its end is written down before the request is answered.

    Args:
        request: what asks for it.
        audit: the log.
        caller: who asks for it.
        action: such as model.activate.
        target: such as bottle/20261125T011500-3f9a2c.

    Yields:
        The detail to be logged, JSON; a refusal adds its reason.
    """
    detail: dict[str, Any] = {}
    request_id = request.state.request_id
    try:
        yield detail
    except Exception as error:
        # Of what nobody expected the log of the server has more, under the request's id.
        detail["problem"] = error.name if isinstance(error, Problem) else type(error).__name__
        if isinstance(error, Problem):
            detail["reason"] = error.detail
        await asyncio.to_thread(audit.write, caller, action, target, "refused", detail, request_id)
        raise
    await asyncio.to_thread(audit.write, caller, action, target, "done", detail, request_id)
