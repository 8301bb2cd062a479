"""The time by which inspections are deleted: the wall clock's, unless it has jumped ahead.

A wall clock that is wrong for a minute must not cost a history. Time passes here by the monotonic clock; a
wall clock more than an hour ahead of it is believed when it has been so for a day, and until then the time
before goes on. A wall clock that goes back is believed at once: by it, less is deleted.

At the start nothing is known but what was inspected before, so a wall clock more than an hour ahead of the
newest inspection is in doubt as well: after a pause of a night, what is deleted lags behind by that night.
Inspections made since the start confirm nothing, for the same clock has made their times.

So a clock that is ahead, suddenly or from the start, deletes nothing for a day, in which the log says so.
Nothing protects from a clock that stays ahead for longer, or over a restart, when the newest inspections are
from that future; nor from one that is less than an hour ahead.

What was inspected while the clock was behind has no age that a clock could tell: see app/history/ageless.py.
"""

import logging
import time
from collections.abc import Callable
from typing import Final

from app.database.clock import iso, now_ms

logger = logging.getLogger("flowgauge.retention")

_TOLERATED_MS: Final = 3_600_000
_BELIEVED_AFTER_MS: Final = 24 * 3_600_000


def monotonic_ms() -> int:
    """Milliseconds since any moment, which pass whatever the wall clock does."""
    return time.monotonic_ns() // 1_000_000


class SteadyClock:
    """A clock that does not jump ahead.

    Args:
        newest_ms: when the newest inspection before the start was made, in milliseconds since 1970, UTC; None
            where there is none, and so none to delete.
        wall_ms: the wall clock.
        monotonic_ms: milliseconds since any moment, which pass whatever the wall clock does.
    """

    def __init__(
        self,
        newest_ms: int | None,
        wall_ms: Callable[[], int] = now_ms,
        monotonic_ms: Callable[[], int] = monotonic_ms,
    ) -> None:
        self._wall_ms = wall_ms
        self._monotonic_ms = monotonic_ms
        # How far the wall clock is ahead of the monotonic one: as believed, and as in doubt, with since when.
        self._ahead = (wall_ms() if newest_ms is None else newest_ms) - monotonic_ms()
        self._doubted: tuple[int, int] | None = None
        # Before, a difference may well be a pause of the line, over a night.
        self._agreed = newest_ms is None

    def now_ms(self) -> int:
        """Milliseconds since 1970, UTC; to be asked for every few minutes."""
        monotonic, wall = self._monotonic_ms(), self._wall_ms()
        ahead = wall - monotonic
        if ahead - self._ahead <= _TOLERATED_MS:
            self._ahead, self._doubted, self._agreed = ahead, None, True
        elif self._doubted is None or abs(ahead - self._doubted[0]) > _TOLERATED_MS:
            self._doubted = ahead, monotonic
            logger.log(
                logging.ERROR if self._agreed else logging.WARNING,
                "the clock says %s where %s was expected: until it has gone on for 24 hours without a "
                "jump, inspections are deleted by age as of the latter; see whether the clock is right",
                iso(wall),
                iso(monotonic + self._ahead),
            )
        elif monotonic - self._doubted[1] >= _BELIEVED_AFTER_MS:
            logger.warning("the clock, %s, has gone on for 24 hours and is believed", iso(wall))
            self._ahead, self._doubted, self._agreed = ahead, None, True
        return monotonic + self._ahead
