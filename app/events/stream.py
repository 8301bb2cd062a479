"""The feed as server-sent events (HTML standard, section 9.2)."""

import json
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from app.events.feed import Feed, ReaderTooSlow
from app.events.log import EventSelector
from app.http.responses import PiecewiseResponse

MEDIA_TYPE: Final = "text/event-stream"
# Time after which a browser reconnects, in milliseconds.
RETRY: Final = b"retry: 2000\n\n"


class EventStreamResponse(PiecewiseResponse, StreamingResponse):
    """A response of server-sent events, which counts as a reader of the feed."""

    min_rate = 1024

    def __init__(self, pieces: AsyncIterable[bytes], feed: Feed, key_id: str | None) -> None:
        # no-transform and X-Accel-Buffering: proxies must pass on each event at once.
        headers = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}
        super().__init__(pieces, media_type=MEDIA_TYPE, headers=headers)
        self._feed = feed
        self._key_id = key_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream.

        Raises:
            Problem: queue-full or draining; nothing was sent.
            ClientDisconnect: the reader takes nothing or is too slow. It can reconnect for the missing
                events.
            DatabaseUnavailable: the log cannot be read; the events sent are complete.
        """
        with self._feed.reader(self._key_id):
            try:
                await super().__call__(scope, receive, send)
            except ClientDisconnect:
                self._feed.dropped["slow"] += 1
                raise


class FeedResponse(EventStreamResponse):
    """An endless response of the feed's events.

    It ends when the reader leaves or is too slow, when its key is no longer valid, and when the server stops.

    Args:
        after: the number after which to start.
        gap: the reason why earlier events are missing; None if none are.
        may_listen: returns False once the caller's key or session is invalid.
    """

    def __init__(
        self,
        feed: Feed,
        selector: EventSelector,
        after: int,
        gap: str | None,
        may_listen: Callable[[], bool],
        key_id: str | None = None,
    ) -> None:
        super().__init__(self._pieces(after, selector, gap), feed, key_id)
        self._may_listen = may_listen

    async def _pieces(
        self, after: int, selector: EventSelector, gap: str | None
    ) -> AsyncGenerator[bytes, None]:
        yield RETRY
        if gap is not None:
            yield self._frame("gap", after, json.dumps({"detail": gap}))
        try:
            async for number, events in self._feed.follow(after, selector):
                if not self._may_listen():
                    yield b": the key is no longer valid\n\n"
                    return
                if events:
                    yield b"".join(self._frame(event.kind, event.number, event.data) for event in events)
                    self._feed.sent += len(events)
                else:  # an event, not a comment: scripts in a browser do not see comments
                    yield self._frame("position", number, "{}")
        except ReaderTooSlow:
            self._feed.dropped["slow"] += 1
            yield b": too slow; connect again for the missing events\n\n"
            return
        yield b": the server is stopping\n\n"

    def _frame(self, name: str, number: int, data: str) -> bytes:
        return to_frame(name, data, self._feed.cursors.at(number))


def to_frame(name: str, data: str, identifier: str | None = None) -> bytes:
    """Format an event; the identifier is what a reader sends as Last-Event-ID."""
    head = "" if identifier is None else f"id: {identifier}\n"
    return f"{head}event: {name}\ndata: {data}\n\n".encode()
