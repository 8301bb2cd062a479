"""Request ids, log lines, metrics and security headers of every request."""

import logging
import re
import time
import uuid
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import problem_responses, problems
from app.middleware.client_address import client_address
from app.scheduling.draining import Draining
from app.telemetry import logs
from app.telemetry.metrics import Telemetry

logger = logging.getLogger("flowgauge.requests")

HEADER = "X-Request-ID"
# Ids that are safe in a log line and in a header.
_VALID = re.compile(r"[A-Za-z0-9._:@+=/-]{1,128}")
# Headers for browsers, unless the route sets them.
_SECURITY: Final = {
    "X-Content-Type-Options": "nosniff",
    # Not no-referrer: with it a browser says "Origin: null" even to the page's own host.
    "Referrer-Policy": "same-origin",
    # Without keys, no other site may show images of this one.
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class RequestContext:
    """ASGI middleware for request ids, the log, headers for browsers, and 500 for unexpected errors.

    A client's `X-Request-ID` is used if it is 1 to 128 of `A-Z a-z 0-9 . _ : @ + = / -`; otherwise a new one
    is made. It is `request.state.request_id` and a header of every response.

    While the server stops, every response also tells the client to close the connection.
    """

    def __init__(self, app: ASGIApp, telemetry: Telemetry, draining: Draining) -> None:
        self.app = app
        self._telemetry = telemetry
        self._draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.perf_counter()
        sent_id = Headers(scope=scope).get(HEADER, "")
        request_id = sent_id if _VALID.fullmatch(sent_id) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        token = logs.REQUEST_ID.set(request_id)
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[HEADER] = request_id
                for name, value in _SECURITY.items():
                    headers.setdefault(name, value)
                if self._draining.begun:
                    headers["Connection"] = "close"
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except ClientDisconnect:
            pass  # no client is left to answer
        except Exception as error:
            problem = problem_responses.to_problem(error)
            if status:  # the response has started and can only be cut off
                raise
            await problem_responses.problem_response(Request(scope), problem)(scope, receive, send_with_id)
        finally:
            self._record(scope, status, time.perf_counter() - start)
            logs.REQUEST_ID.reset(token)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        # The router and `problem_responses` add these to the scope.
        route: str | None = getattr(scope.get("route"), "path_format", None)
        problem: problems.ProblemName | None = scope["state"].get("problem")
        self._telemetry.count_request(route, scope["method"], status, seconds, problem)
        caller = scope["state"].get("caller")
        fields = {
            "method": scope["method"],
            # The raw path is ASCII without control characters, so it cannot forge a log line.
            "path": scope["raw_path"].decode("latin-1"),
            "route": route,
            "status": status or None,
            "ms": round(1000 * seconds, 1),
            "problem": problem,
            "client": client_address(scope),
            "key_id": None if caller is None else caller.key_id,
        }
        line = f"%(method)s %(path)s {status or 'client left'} %(ms).1f ms"
        line += " %(problem)s" if problem else ""
        line += " client=%(client)s"
        line += " key=%(key_id)s" if fields["key_id"] else ""
        logger.info(line, fields, extra={"fields": fields})
