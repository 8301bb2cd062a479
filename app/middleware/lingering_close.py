"""Lingering close: read the rest of a request's body, so that an early answer arrives.

A server that closes a connection with unread bytes resets it, and the client loses the answer. This happens
to a 413 or 404 on an upload, with `Connection: close` or HTTP/1.0. nginx calls the remedy a lingering close.
"""

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class LingeringClose:
    """ASGI middleware, the outermost, that ends a response after discarding the rest of the body.

    The response is sent at once. Only its end, at which the server closes the connection, waits.

    Args:
        max_seconds: longest wait for the rest of the body.
    """

    def __init__(self, app: ASGIApp, max_seconds: float = 30.0) -> None:
        self.app = app
        self._max_seconds = max_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        if "transfer-encoding" not in headers and headers.get("content-length", "0") == "0":
            await self.app(scope, receive, send)
            return
        # True while part of the body is unread. A client that expects 100-continue sends no body before it.
        is_unread = headers.get("expect", "").lower() != "100-continue"
        end: Message | None = None

        async def track_receive() -> Message:
            nonlocal is_unread
            message = await receive()
            is_unread = message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def send_without_end(message: Message) -> None:
            nonlocal end
            is_end = message["type"] == "http.response.body" and not message.get("more_body", False)
            if is_end and is_unread:
                end = {"type": "http.response.body", "body": b""}
                message = {**message, "more_body": True}
            await send(message)

        await self.app(scope, track_receive, send_without_end)
        if end is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._max_seconds):
                    while is_unread:
                        await track_receive()
            await send(end)
