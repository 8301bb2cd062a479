"""Middleware of Ray Serve's HTTP proxies: routing by category, problems for Ray's errors."""

import json
import re
import uuid
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors.problems import TYPES

# Ray Serve prefers replicas that have reported this model.
MODEL_HEADER: Final = "serve_multiplexed_model_id"
_CATEGORY: Final = re.compile(r"/v[12]/models/([a-z0-9][a-z0-9_-]{0,63})(?:/|$)")
_REQUEST_ID: Final = "X-Request-ID"


def middlewares() -> list[Middleware]:
    """Return the middleware; Ray calls it by RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH."""
    return [Middleware(CategoryRouting), Middleware(ProblemAnswers)]


class CategoryRouting:
    """Names the category of a path to Ray, which no client can do itself."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = MutableHeaders(scope=scope)
            for name in (MODEL_HEADER, MODEL_HEADER.replace("_", "-")):
                del headers[name]
            if found := _CATEGORY.match(scope["path"]):
                headers[MODEL_HEADER] = found[1]
        await self.app(scope, receive, send)


class ProblemAnswers:
    """Replaces errors that Ray answers itself by the problem `draining`: repeat the request.

    Ray's are plain text, which no route answers with these codes: 404 is that of a proxy that knows no
    application yet. The X-Request-ID that Ray adds to ours is removed.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/-/"):  # Ray's own health checks
            await self.app(scope, receive, send)
            return
        started = replaced = False

        async def replace(message: Message) -> None:
            nonlocal started, replaced
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                is_text = headers.get("content-type", "").startswith("text/plain")
                replaced = message["status"] in (404, 408, 500, 503) and is_text
                if replaced:
                    await _send_problem(scope, send)
                elif (own := headers.get(_REQUEST_ID)) is not None:
                    headers[_REQUEST_ID] = own  # Ray adds a second one behind it
            if not replaced:
                await send(message)

        try:
            await self.app(scope, receive, replace)
        except Exception:  # the replica has died
            if started:
                raise
        if not started:
            await _send_problem(scope, send)


async def _send_problem(scope: Scope, send: Send) -> None:
    kind, request_id = TYPES["draining"], Headers(scope=scope).get(_REQUEST_ID) or uuid.uuid4().hex
    problem = {
        "type": "draining",
        "title": kind.title,
        "status": kind.status,
        "detail": "No replica could answer. Send it again.",
        "instance": scope.get("raw_path", scope["path"].encode()).decode("latin-1"),
        "request_id": request_id,
    }
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"retry-after", str(kind.retry_after).encode()),
        (_REQUEST_ID.lower().encode(), request_id.encode()),
    ]
    await send({"type": "http.response.start", "status": kind.status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(problem).encode()})
