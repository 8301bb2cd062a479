"""Times and ids of the history: milliseconds since 1970, UTC, and UUIDs that sort by them."""

import os
import threading
import time
import uuid
from datetime import UTC, datetime

_lock = threading.Lock()
_last = 0
# Ids so far ahead of the clock were made while it was wrong. A clock that is merely corrected moves less.
_AHEAD_MS = 10_000


def now_ms() -> int:
    """Milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000


def new_id() -> str:
    """A UUID of version 7 (RFC 9562, section 5.7), greater than every one this process has made before.

    48 bits of milliseconds and 12 bits that count up within one (method 1 of section 6.2); when the clock is
    set back by a few seconds, the count goes on where it was. When by more, it was wrong before: ids begin
    again at the clock, or they would lie in the future until a restart.
    """
    global _last
    with _lock:
        now = now_ms()
        if (_last >> 12) - now > _AHEAD_MS:
            _last = 0
        _last = max(_last + 1, now << 12)
        ticks = _last
    random = int.from_bytes(os.urandom(8), "big") & (2**62 - 1)
    return str(uuid.UUID(int=(ticks >> 12 << 80) | (7 << 76) | ((ticks & 0xFFF) << 64) | (2 << 62) | random))


def first_id(at_ms: int) -> str:
    """The least id that can be made at a time: ids of later moments sort after it, of earlier before it."""
    return str(uuid.UUID(int=max(0, at_ms) << 80))


def id_to_ms(identifier: str) -> int:
    """Milliseconds since 1970 at which an id was made."""
    return uuid.UUID(identifier).int >> 80


def iso(at_ms: int) -> str:
    """A time as ISO 8601, such as 2026-11-25T01:15:00.123Z."""
    moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_datetime(moment: datetime) -> int:
    """Milliseconds since 1970 of a datetime; one without a zone is taken as UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(aware.timestamp() * 1000)
