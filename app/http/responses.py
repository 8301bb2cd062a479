"""Responses that bound buffered bytes, concurrent streams and slow clients."""

from collections.abc import Iterator
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from app.http.transfer_rate import MinTransferRate
from app.scheduling.admission import Reservation
from app.scheduling.concurrency_limit import ConcurrencyLimit

# uvicorn buffers a whole message and then waits for the client. With small pieces, at most two of them are in
# buffers that `Admission` does not count.
PIECE_BYTES = 64 * 1024

# A client that takes nothing for this long, or falls this far behind the minimum rate, is dropped: it would
# hold memory that others need.
STALLED_SECONDS = 30.0


class PiecewiseResponse(Response):
    """A response sent in pieces, so that the server buffers at most two of them.

    Attributes:
        min_rate: bytes a second, see `MinTransferRate`.
    """

    min_rate: float | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response.

        Raises:
            ClientDisconnect: the client takes nothing, or takes it too slowly.
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
    """A streaming response with a limit on how many are sent at a time."""

    min_rate = 8 * 1024

    def __init__(
        self, limit: ConcurrencyLimit, key_id: str | None, content: Iterator[bytes], **options: Any
    ) -> None:
        super().__init__(content, **options)
        self._limit = limit
        self._key_id = key_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response.

        Raises:
            Problem: queue-full; nothing was sent.
            ClientDisconnect: as for `PiecewiseResponse`.
        """
        with self._limit.hold(self._key_id):
            await super().__call__(scope, receive, send)


class AccountedResponse(PiecewiseResponse):
    """A response that releases its reservation once it is sent, or cannot be sent."""

    def __init__(self, response: Response, reservation: Reservation) -> None:
        super().__init__(response.body, response.status_code)
        self.raw_headers = response.raw_headers
        self._reservation = reservation
        reservation.keep_answer_only(len(response.body))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._reservation:
            await super().__call__(scope, receive, send)
