"""The webhook sink: signed HTTP requests to a receiver."""

import asyncio
import base64
import hashlib
import hmac
import json
import math
import time
from importlib.metadata import version
from typing import Final

import httpx

from app.events.log import EventSelector, NumberedEvent
from app.events.sinks.config import tls_context
from app.events.sinks.sink import DeliveryError, Sink
from app.events.sinks.webhook_file import Webhook

# The receiver is busy. Such attempts never count: waiting is better than giving up.
_BUSY: Final = frozenset({408, 425, 429, 502, 503, 504})
# The address or the secret is wrong, or the receiver is not set up yet. Not the fault of the event.
_NOT_SET_UP: Final = frozenset({401, 403, 404, 405, 407})
_MAX_WAIT: Final = 3600.0  # seconds, whatever Retry-After says
_CONNECTIONS: Final = 8
_BODY_BYTES: Final = 2**16  # read of a response, at most


class WebhookSink(Sink):
    """A sink for an HTTP receiver. A 2xx status confirms an event; redirects are not followed.

    Raises:
        SinkError: the file of its authority cannot be read.
    """

    def __init__(self, webhook: Webhook) -> None:
        self.name = f"webhook-{webhook.name}"
        self.description = f"webhook {webhook.name} to {webhook.host}"
        self.events = EventSelector(
            kind=frozenset({"inspection"}), decision=webhook.decisions, category=webhook.categories
        )
        self.attempts = webhook.attempts
        self._url = str(webhook.url)
        self._key = webhook.secret
        self._seconds = webhook.timeout_seconds
        self._client = httpx.AsyncClient(
            verify=tls_context(webhook.ca, f"the `ca` of webhook {webhook.name}"),
            timeout=self._seconds,
            limits=httpx.Limits(max_connections=_CONNECTIONS, keepalive_expiry=30),
            trust_env=False,
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def deliver(self, event: NumberedEvent, redelivered: bool) -> None:
        """Send an event, or raise DeliveryError if it was not accepted."""
        data = json.loads(event.data)
        content = {
            "type": event.kind,
            "timestamp": data["created_at"],
            "redelivered": redelivered,
            "data": data,
        }
        body = json.dumps(content).encode()
        headers = {
            "content-type": "application/json",
            "user-agent": f"FlowGauge/{version('flowgauge')}",
            **sign(self._key, data["inspection_id"], int(time.time()), body),
        }
        response = None
        try:
            # The client's own timeout applies to each piece: a receiver could send one byte at a time.
            async with (
                asyncio.timeout(3 * self._seconds),
                self._client.stream("POST", self._url, headers=headers, content=body) as response,
            ):
                # Read a short body to its end, so that the connection can be reused.
                async for _ in response.aiter_raw():
                    if response.num_bytes_downloaded > _BODY_BYTES:
                        break
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise DeliveryError(f"the receiver cannot be reached: {error}") from error
        except (TimeoutError, httpx.TransportError) as error:
            if response is None:  # otherwise only the body failed, and the status counts
                if isinstance(error, TimeoutError | httpx.TimeoutException):
                    reason = "the receiver did not answer in time"
                    raise DeliveryError(reason, reached=True, counts=True) from error
                reason = f"the connection ended without a response: {error}"
                raise DeliveryError(reason, reached=True) from error
        if response is not None and not response.is_success:
            raise _refusal(response)


def sign(key: bytes, identifier: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Make the headers of the Standard Webhooks specification: HMAC-SHA256 over id, time and body.

    Args:
        key: decoded secret of the webhook.
        identifier: of the message, the same for every attempt.
        timestamp: seconds since 1970.
        body: of the request.
    """
    signed = f"{identifier}.{timestamp}.".encode() + body
    signature = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    return {
        "webhook-id": identifier,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{signature}",
    }


def _refusal(response: httpx.Response) -> DeliveryError:
    status = response.status_code
    final = 400 <= status < 500 and status not in _BUSY | _NOT_SET_UP
    note = (
        ", a redirect, which is not followed" if response.is_redirect else ", which is final" if final else ""
    )
    return DeliveryError(
        f"the receiver answers {status}{note}",
        reached=True,
        counts=status not in _BUSY,
        final=final,
        wait=_retry_after(response.headers.get("Retry-After", "")),
    )


def _retry_after(text: str) -> float | None:
    """Parse the seconds of Retry-After; None if there are none."""
    try:
        seconds = float(text)
    except ValueError:  # also for a date: the usual delays suffice
        return None
    return min(seconds, _MAX_WAIT) if math.isfinite(seconds) and seconds > 0 else None
