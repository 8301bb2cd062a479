"""Sending an answer: its bytes stay on the account until the client has taken them."""

from collections.abc import Iterator
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from app.http.transfer_rate import MinTransferRate
from app.scheduling.admission import Reservation
from app.scheduling.concurrency_limit import ConcurrencyLimit

# The server buffers a message whole and waits for the client before it takes the next. So an answer goes out
# in pieces, and no more than one or two of them are in a buffer that nobody counts.
PIECE_BYTES = 64 * 1024

# A client that takes nothing for so long, or is so far behind the least rate, is left: it would keep the room
# from the others.
STALLED_SECONDS = 30.0


class PiecewiseResponse(Response):
    """A response of which the server buffers a piece or two, not all of it.

    Attributes:
        min_rate: bytes a second, as of `MinTransferRate`.
    """

    min_rate: float | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it.

        Raises:
            ClientDisconnect: the client has stopped taking it, or takes it too slowly.
        """
        transfer_rate = MinTransferRate(STALLED_SECONDS, self.min_rate)

        async def send_on(message: Message) -> None:
            try:
                await transfer_rate.wait(send(message))
            except TimeoutError:
                raise ClientDisconnect from None
            transfer_rate.credit(len(message.get("body", b"")))

        async def send_in_pieces(message: Message) -> None:
            body, sent = message.get("body", b""), 0
            while len(body) - sent > PIECE_BYTES:
                piece = body[sent : sent + PIECE_BYTES]
                await send_on({**message, "body": piece, "more_body": True})
                sent += PIECE_BYTES
            await send_on({**message, "body": body[sent:]} if sent else message)

        await super().__call__(scope, receive, send_in_pieces)


class LimitedStreamingResponse(PiecewiseResponse, StreamingResponse):
    """A streamed answer of which only a limited number is sent at a time; it holds little memory.

    Args:
        places: as many as may be sent at a time.
        key_id: whose place it is, see `ConcurrencyLimit`.
        content: as of `StreamingResponse`.
        options: as of `StreamingResponse`.
    """

    min_rate = 8 * 1024

    def __init__(
        self,
        places: ConcurrencyLimit,
        key_id: str | None,
        content: Iterator[bytes],
        **options: Any,
    ) -> None:
        super().__init__(content, **options)
        self._places = places
        self._key_id = key_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it.

        Raises:
            Problem: queue-full; nothing was sent.
            ClientDisconnect: as of `PiecewiseResponse`.
        """
        with self._places.hold(self._key_id):
            await super().__call__(scope, receive, send)


class AccountedResponse(PiecewiseResponse):
    """A response that gives its reservation back when it is sent, or cannot be.

    Args:
        response: the answer; its body is counted from here on.
        room: what was reserved for the request. Closed by sending, so it must be open until then.
    """

    def __init__(self, response: Response, room: Reservation) -> None:
        super().__init__(response.body, response.status_code)
        self.raw_headers = response.raw_headers
        self._room = room
        room.keep_answer_only(len(response.body))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; as of `PiecewiseResponse`."""
        with self._room:
            await super().__call__(scope, receive, send)
