"""Times in milliseconds since 1970, UTC, and UUIDs that sort by time."""

import os
import threading
import time
import uuid
from datetime import UTC, datetime

_lock = threading.Lock()
_last = 0
# Ids further ahead of the clock were made while it was wrong. A correction by NTP moves the clock less.
_MAX_AHEAD_MS = 10_000


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def new_id() -> str:
    """Make a UUID of version 7 (RFC 9562, section 5.7), greater than all that this process made before.

    It has 48 bits of milliseconds and a 12-bit counter (method 1 of section 6.2). If the clock moves back by
    a few seconds, the counter continues. If it moves back further, the clock was wrong before: ids restart at
    the clock, as they would otherwise lie in the future until a restart.
    """
    global _last
    with _lock:
        now = now_ms()
        if (_last >> 12) - now > _MAX_AHEAD_MS:
            _last = 0
        _last = max(_last + 1, now << 12)
        ticks = _last
    random = int.from_bytes(os.urandom(8), "big") & (2**62 - 1)
    return str(uuid.UUID(int=(ticks >> 12 << 80) | (7 << 76) | ((ticks & 0xFFF) << 64) | (2 << 62) | random))


def first_id(at_ms: int) -> str:
    """Return the smallest id of a time: later ids sort after it, earlier ones before it."""
    return str(uuid.UUID(int=max(0, at_ms) << 80))


def id_to_ms(identifier: str) -> int:
    """Return the time at which an id was made."""
    return uuid.UUID(identifier).int >> 80


def iso(at_ms: int) -> str:
    """Format a time as ISO 8601, such as 2026-11-25T01:15:00.123Z."""
    moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_datetime(moment: datetime) -> int:
    """Convert a datetime to milliseconds; one without a time zone is UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(aware.timestamp() * 1000)
