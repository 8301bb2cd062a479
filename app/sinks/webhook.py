"""Inspections to a receiver over HTTP, signed."""

import asyncio
import json
import math
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import Final

import httpx

from app.feed.log import Event, Wanted
from app.sinks.delivery import Undelivered
from app.sinks.signing import sign
from app.sinks.webhook_file import Webhook

# The receiver is there and cannot take it now: trying again is better than giving up, however long it takes.
_NOT_NOW: Final = frozenset({408, 425, 429, 502, 503, 504})
# Not of this event, but of an address or a secret that is wrong, or not there yet.
_NOT_SET_UP: Final = frozenset({401, 403, 404, 405, 407})
_LONGEST_WAIT: Final = 3600.0  # seconds, whatever Retry-After says
_CONNECTIONS: Final = 8
_BODY_BYTES: Final = 2**16  # that are read of an answer


class WebhookSink:
    """A receiver. Answers of 2xx say that it has an event; redirects are not followed.

    Args:
        webhook: which.

    Raises:
        SinkError: its secret or its authority cannot be used.
    """

    def __init__(self, webhook: Webhook) -> None:
        self.name = f"webhook-{webhook.name}"
        self.wanted = Wanted(
            kinds=frozenset({"inspection"}), decisions=webhook.decisions, categories=webhook.categories
        )
        self.attempts = webhook.attempts
        self._url = webhook.url
        self._key = webhook.key()
        self._seconds = webhook.timeout_seconds
        self._client = httpx.AsyncClient(
            verify=webhook.tls(),
            timeout=webhook.timeout_seconds,
            limits=httpx.Limits(max_connections=_CONNECTIONS, keepalive_expiry=30),
            trust_env=False,
        )

    async def open(self) -> None:
        """There is nothing to do before the first event."""

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

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
        response = None
        try:
            # The client's own limit is for each piece: a receiver could send one byte at a time.
            async with (
                asyncio.timeout(3 * self._seconds),
                self._client.stream("POST", self._url, headers=headers, content=body) as response,
            ):
                await _read_body(response)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Undelivered(f"the receiver cannot be reached: {error}") from error
        except (TimeoutError, httpx.TimeoutException) as error:
            if response is None:  # else it was the body that took too long, and the status counts
                said = "the receiver has not answered in time"
                raise Undelivered(said, reached=True, counts=True) from error
        except httpx.TransportError as error:
            if response is None:
                said = f"the connection ended without an answer: {error}"
                raise Undelivered(said, reached=True) from error
        if response is not None and not response.is_success:
            raise _refusal(response)


async def _read_body(response: httpx.Response) -> None:
    """Read a small body to its end, so that the connection is used again."""
    size = 0
    async for piece in response.aiter_raw():
        size += len(piece)
        if size > _BODY_BYTES:
            return


def _refusal(response: httpx.Response) -> Undelivered:
    status, wait = response.status_code, _retry_after(response.headers.get("Retry-After", ""))
    if status in _NOT_NOW:
        return Undelivered(f"the receiver answers {status}", reached=True, wait=wait)
    if status >= 500:
        return Undelivered(f"the receiver answers {status}", reached=True, counts=True, wait=wait)
    if 300 <= status < 400:
        said = f"the receiver answers {status}, a redirect, which is not followed"
        return Undelivered(said, reached=True, counts=True)
    if status in _NOT_SET_UP:
        return Undelivered(f"the receiver answers {status}", reached=True, counts=True)
    return Undelivered(f"the receiver answers {status}, which is final", reached=True, final=True)


def _retry_after(text: str) -> float | None:
    """Seconds that the receiver asks to wait for; None where it does not, or not intelligibly."""
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
