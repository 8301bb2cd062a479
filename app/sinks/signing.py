"""Signatures of webhooks by the Standard Webhooks specification: HMAC-SHA256 over id, time and body."""

import base64
import binascii
import hashlib
import hmac
from typing import Final

from app.sinks.errors import SinkError

PREFIX: Final = "whsec_"
_LEAST_BYTES, _MOST_BYTES = 24, 64


def read_secret(text: str) -> bytes:
    """The key that a secret such as whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD stands for.

    Raises:
        SinkError: it is none.
    """
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not text.startswith(PREFIX) or not _LEAST_BYTES <= len(key) <= _MOST_BYTES:
        raise SinkError(
            f"must be {PREFIX} and 24 to 64 random bytes in base64; make one with: "
            f"echo {PREFIX}$(openssl rand -base64 32)"
        )
    return key


def sign(key: bytes, identifier: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a message.

    Args:
        key: of `read_secret`.
        identifier: of the message, the same for every attempt.
        timestamp: seconds since 1970.
        body: as it is sent.
    """
    signed = f"{identifier}.{timestamp}.".encode() + body
    signature = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    return {
        "webhook-id": identifier,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{signature}",
    }
