"""The feed as server-sent events (the HTML standard, section 9.2)."""

import json
from collections.abc import AsyncGenerator, Callable
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from app.events.feed import Feed, ReaderTooSlow
from app.events.log import EventSelector
from app.http.responses import PiecewiseResponse

MEDIA_TYPE: Final = "text/event-stream"
# A browser comes back after so long; others may as well.
RETRY_MS: Final = 2000


class EventStreamResponse(PiecewiseResponse, StreamingResponse):
    """A response that goes on until the reader leaves, is too slow, may not listen, or the server stops.

    Args:
        feed: of the service.
        wanted: which events.
        after: the number after which to begin.
        gap: why what is missing before that cannot be told any more; None where nothing is.
        may_listen: whether who began this still may.
        key_id: of whoever listens; None where there are no keys.
    """

    min_rate = 1024

    def __init__(
        self,
        feed: Feed,
        wanted: EventSelector,
        after: int,
        gap: str | None,
        may_listen: Callable[[], bool],
        key_id: str | None = None,
    ) -> None:
        # no-transform and X-Accel-Buffering: proxies must pass on what comes when it comes.
        headers = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}
        super().__init__(self._pieces(after, wanted, gap), media_type=MEDIA_TYPE, headers=headers)
        self._feed = feed
        self._may_listen = may_listen
        self._key_id = key_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it.

        Raises:
            Problem: queue-full or draining; nothing was sent.
            ClientDisconnect: the reader takes nothing, or too slowly: it comes back for what it has missed.
            DatabaseUnavailable: the log cannot be read; what was sent is whole.
        """
        with self._feed.reader(self._key_id):
            try:
                await super().__call__(scope, receive, send)
            except ClientDisconnect:
                self._feed.dropped["slow"] += 1
                raise

    async def _pieces(
        self, after: int, wanted: EventSelector, gap: str | None
    ) -> AsyncGenerator[bytes, None]:
        yield f"retry: {RETRY_MS}\n\n".encode()
        if gap is not None:
            yield self._frame("gap", after, json.dumps({"detail": gap}))
        try:
            async for number, events in self._feed.follow(after, wanted):
                if not self._may_listen():
                    yield b": the key is no longer valid\n\n"
                    return
                if events:
                    yield b"".join(self._frame(event.kind, event.number, event.data) for event in events)
                    self._feed.sent += len(events)
                else:  # no comment: scripts in a browser must hear that this is alive
                    yield self._frame("position", number, "{}")
        except ReaderTooSlow:
            self._feed.dropped["slow"] += 1
            yield b": too slow; connect again for what is missing\n\n"
            return
        yield b": the server is stopping\n\n"

    def _frame(self, name: str, number: int, data: str) -> bytes:
        return f"id: {self._feed.cursors.at(number)}\nevent: {name}\ndata: {data}\n\n".encode()
