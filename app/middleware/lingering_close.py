"""Read on after an answer that came before the end of the request's body, so that the answer arrives.

A server that closes a connection with unread bytes resets it, and the client loses the answer: a 413 or 404
to an upload, with `Connection: close` or HTTP/1.0. nginx calls the remedy a lingering close.
"""

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class LingeringClose:
    """ASGI middleware, the outermost: ends an answer once the rest of the body was read and thrown away.

    The answer itself is sent before; only its end, with which the server closes the connection, waits.

    Args:
        app: what answers.
        max_seconds: whoever takes longer to send the body may lose the answer.
    """

    def __init__(self, app: ASGIApp, max_seconds: float = 30.0) -> None:
        self.app = app
        self._max_seconds = max_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        if "transfer-encoding" not in headers and headers.get("content-length", "0") == "0":
            await self.app(scope, receive, send)
            return
        # Whether part of the body is on its way. Who expects to be told to go on sends nothing before.
        unread = headers.get("expect", "").lower() != "100-continue"
        held_back: Message | None = None

        async def receive_and_note() -> Message:
            nonlocal unread
            message = await receive()
            unread = message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def send_all_but_the_end(message: Message) -> None:
            nonlocal held_back
            ends = message["type"] == "http.response.body" and not message.get("more_body", False)
            if ends and unread:
                held_back = {"type": "http.response.body", "body": b""}
                message = {**message, "more_body": True}
            await send(message)

        await self.app(scope, receive_and_note, send_all_but_the_end)
        if held_back is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._max_seconds):
                    while unread:
                        await receive_and_note()
            await send(held_back)
