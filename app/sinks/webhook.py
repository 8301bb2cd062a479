"""Inspections to a receiver over HTTP, signed."""

import asyncio
import json
import math
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import Final

import httpcore

from app.feed.log import Event, Wanted
from app.sinks.addresses import Addresses, Network
from app.sinks.delivery import Undelivered
from app.sinks.signing import sign
from app.sinks.webhook_file import Webhook

# The receiver is there and cannot take it now: trying again is better than giving up, however long it takes.
_NOT_NOW: Final = frozenset({408, 425, 429, 502, 503, 504})
# Not of this event, but of an address or a secret that is wrong, or not there yet.
_NOT_SET_UP: Final = frozenset({401, 403, 404, 405, 407})
_LONGEST_WAIT: Final = 3600.0  # seconds, whatever Retry-After says
_CONNECTIONS: Final = 8
# What is read of an answer's body: it says nothing, but a connection is used again once all of it was read.
_BODY_BYTES: Final = 2**16
_BODY_SECONDS: Final = 0.2


class WebhookSink:
    """A receiver. Answers of 2xx say that it has an event; redirects are not followed.

    Args:
        webhook: which.
        networks: private addresses that may be connected to.

    Raises:
        SinkError: its secret or its authority cannot be used.
    """

    def __init__(self, webhook: Webhook, networks: Sequence[Network]) -> None:
        self.name = f"webhook-{webhook.name}"
        self.wanted = Wanted(
            kinds=frozenset({"inspection"}), decisions=webhook.decisions, categories=webhook.categories
        )
        self.attempts = webhook.attempts
        self._url = webhook.url
        self._key = webhook.key()
        self._seconds = webhook.timeout_seconds
        self._addresses = Addresses(networks)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=webhook.tls(),
            max_connections=_CONNECTIONS,
            keepalive_expiry=30,
            network_backend=self._addresses,
        )

    async def open(self) -> None:
        """There is nothing to do before the first event."""

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.aclose()
        self._addresses.close()

    @property
    def is_ready(self) -> bool:
        """Always: only an attempt shows whether the receiver is there."""
        return True

    async def ready(self) -> None:
        """There is nothing to wait for."""

    async def deliver(self, event: Event, redelivered: bool) -> None:
        """Send an event.

        Raises:
            Undelivered: it was not accepted.
        """
        data = json.loads(event.data)
        body = json.dumps(
            {
                "type": event.kind,
                "timestamp": data["created_at"],
                "redelivered": redelivered,
                "data": data,
            }
        ).encode()
        headers = {
            "content-type": "application/json",
            "user-agent": f"FlowGauge/{version('flowgauge')}",
            **sign(self._key, data["inspection_id"], int(time.time()), body),
        }
        seconds = dict.fromkeys(("connect", "read", "write", "pool"), self._seconds)
        status, answered = 0, list[tuple[bytes, bytes]]()
        try:
            async with (
                # httpcore's own are for each piece: a receiver could send one byte at a time. So long that a
                # receiver that is not there is known by one of those: for a free connection, for connecting.
                asyncio.timeout(3 * self._seconds),
                self._pool.stream(
                    "POST",
                    self._url,
                    headers=list(headers.items()),
                    content=body,
                    extensions={"timeout": seconds},
                ) as response,
            ):
                status, answered = response.status, list(response.headers)
                await _read_to_its_end(response)
        except (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.PoolTimeout) as error:
            raise Undelivered(f"the receiver cannot be reached: {error}") from error
        except (TimeoutError, httpcore.TimeoutException) as error:
            if not status:  # else it was the body that took too long
                said = "the receiver has not answered in time"
                raise Undelivered(said, reached=True, counts=True) from error
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            said = f"the connection ended without an answer: {error}"
            raise Undelivered(said, reached=True) from error
        if not 200 <= status < 300:
            raise _refusal(status, answered)


async def _read_to_its_end(response: httpcore.Response) -> None:
    """Read an answer's body if it is small and comes at once; its status counts in any case."""
    with suppress(TimeoutError, httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError):
        async with asyncio.timeout(_BODY_SECONDS):
            size = 0
            async for piece in response.aiter_stream():
                size += len(piece)
                if size > _BODY_BYTES:
                    return


def _refusal(status: int, headers: Iterable[tuple[bytes, bytes]]) -> Undelivered:
    if status in _NOT_NOW:
        return Undelivered(f"the receiver answers {status}", reached=True, wait=_retry_after(headers))
    if status >= 500:
        return Undelivered(
            f"the receiver answers {status}", reached=True, counts=True, wait=_retry_after(headers)
        )
    if 300 <= status < 400:
        said = f"the receiver answers {status}, a redirect, which is not followed"
        return Undelivered(said, reached=True, counts=True)
    if status in _NOT_SET_UP:
        return Undelivered(f"the receiver answers {status}", reached=True, counts=True)
    return Undelivered(f"the receiver answers {status}, which is final", reached=True, final=True)


def _retry_after(headers: Iterable[tuple[bytes, bytes]]) -> float | None:
    """Seconds that the receiver asks to wait for; None where it does not, or not intelligibly."""
    text = next(
        (value.decode("latin-1").strip() for name, value in headers if name.lower() == b"retry-after"), ""
    )
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, OverflowError):  # the latter of a zone with too many digits
            return None
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        seconds = (aware - datetime.now(UTC)).total_seconds()
    return min(seconds, _LONGEST_WAIT) if math.isfinite(seconds) and seconds > 0 else None
