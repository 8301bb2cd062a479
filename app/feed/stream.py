"""The feed as server-sent events (the HTML standard, section 9.2)."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from app.feed.feed import Feed, Overtaken
from app.feed.log import Event, Wanted

MEDIA_TYPE: Final = "text/event-stream"
# A reader that takes nothing for so long is sent away: it comes back and gets what it has missed.
STALLED_SECONDS: Final = 30.0
# A browser comes back after so long; others may as well.
RETRY_MS: Final = 2000
# The server buffers a piece whole, whatever the reader takes; so they are small.
_PIECE_EVENTS: Final = 64


class EventStream(Response):
    """A response that goes on until the reader leaves, is too slow, may not listen, or the server stops.

    Not a library's: each piece must be given up when nobody takes it, the end must come before the server
    closes its connections, and the id must also move on where a filter lets nothing through.

    Args:
        feed: of the service.
        wanted: which events.
        after: the number after which to begin.
        gap: why what is missing before that cannot be told any more; None where nothing is.
        may_listen: whether who began this still may.
        key_id: of whoever listens; None where there are no keys.
    """

    media_type = MEDIA_TYPE

    def __init__(
        self,
        feed: Feed,
        wanted: Wanted,
        after: int,
        gap: str | None,
        may_listen: Callable[[], bool],
        key_id: str | None = None,
    ) -> None:
        self.status_code = 200
        self.background = None
        # no-transform and X-Accel-Buffering: proxies must pass on what comes when it comes.
        self.init_headers({"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"})
        self._feed = feed
        self._wanted = wanted
        self._after = after
        self._gap = gap
        self._may_listen = may_listen
        self._key_id = key_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it.

        Raises:
            Problem: queue-full or draining; nothing was sent.
            ClientDisconnect: the reader has left, or takes nothing.
            DatabaseUnavailable: the log cannot be read; what was sent is whole.
        """
        del scope
        with self._feed.reader(self._key_id):
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            sending = asyncio.create_task(self._send_all(send))
            leaving = asyncio.create_task(_left(receive))
            try:
                await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
                if not sending.done():
                    raise ClientDisconnect
                await sending
            finally:
                for task in (sending, leaving):
                    task.cancel()
                await asyncio.gather(sending, leaving, return_exceptions=True)

    async def _send_all(self, send: Send) -> None:
        async with aclosing(self._pieces()) as pieces:
            async for piece in pieces:
                await self._send(send, {"type": "http.response.body", "body": piece, "more_body": True})
        await self._send(send, {"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send, message: Message) -> None:
        try:
            async with asyncio.timeout(STALLED_SECONDS):
                await send(message)
        except TimeoutError:
            self._feed.dropped["slow"] += 1
            raise ClientDisconnect from None

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        yield f"retry: {RETRY_MS}\n\n".encode()
        if self._gap is not None:
            yield self._frame("gap", self._after, json.dumps({"detail": self._gap}))
        try:
            async with aclosing(self._feed.follow(self._after, self._wanted)) as follow:
                async for number, events in follow:
                    if not self._may_listen():
                        yield b": the key is no longer valid\n\n"
                        return
                    for begin in range(0, len(events), _PIECE_EVENTS):
                        piece = events[begin : begin + _PIECE_EVENTS]
                        yield b"".join(map(self._encode, piece))
                        self._feed.sent += len(piece)
                    if not events:  # no comment: scripts in a browser must hear that this is alive
                        yield self._frame("position", number, "{}")
        except Overtaken:
            self._feed.dropped["slow"] += 1
            yield b": too slow; connect again for what is missing\n\n"
            return
        yield b": the server is stopping\n\n"

    def _encode(self, event: Event) -> bytes:
        return self._frame(event.kind, event.number, event.data)

    def _frame(self, name: str, number: int, data: str) -> bytes:
        return f"id: {self._feed.cursors.at(number)}\nevent: {name}\ndata: {data}\n\n".encode()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
