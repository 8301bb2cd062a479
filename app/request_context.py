"""What every request has, whatever becomes of it: an id, a line in the log, and an answer."""

import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import problems

logger = logging.getLogger("flowgauge.requests")

HEADER = "X-Request-ID"
# What may go into a log line and back into a header without doubt.
_VALID = re.compile(r"[A-Za-z0-9._:@+=/-]{1,128}")


class RequestContext:
    """ASGI middleware: the request id, the log, and 500 for whatever was not foreseen.

    A client's `X-Request-ID` is kept when it is 1 to 128 of `A-Z a-z 0-9 . _ : @ + = / -`;
    otherwise, or when there is none, a new one is made. It is `request.state.request_id` and is on
    every response.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.perf_counter()
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if _VALID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except ClientDisconnect:
            pass  # nobody is left to be answered
        except Exception:
            logger.exception("request %s failed", request_id)
            if status:  # the answer has begun and can only be cut off
                raise
            detail = "This should not happen. The server's log has more under the request id."
            response = problems.answer(Request(scope), "internal", detail)
            await response(scope, receive, send_with_id)
        finally:
            # The raw path is ASCII without control characters: no line of the log can be forged
            # with it.
            logger.info(
                "%s %s %s %.1f ms id=%s",
                scope["method"],
                scope["raw_path"].decode("latin-1"),
                status or "client left",
                1000 * (time.perf_counter() - start),
                request_id,
            )
