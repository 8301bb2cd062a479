"""The text of cursors, for addresses and headers: bytes with a CRC-32 of them, as base64 without padding."""

import base64
import zlib
from typing import Final

_SUM_BYTES: Final = 4


def seal(content: bytes) -> str:
    """The text of what a cursor says."""
    checksum = zlib.crc32(content).to_bytes(_SUM_BYTES, "big")
    return base64.urlsafe_b64encode(content + checksum).decode().rstrip("=")


def unseal(text: str) -> bytes | None:
    """What a text was made of; None where it is damaged, or none of `seal`.

    Bits that are no part of the bytes, of the last character, may be others.
    """
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except ValueError:
        return None
    content, checksum = data[:-_SUM_BYTES], data[-_SUM_BYTES:]
    return content if zlib.crc32(content).to_bytes(_SUM_BYTES, "big") == checksum else None
