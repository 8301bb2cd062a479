"""Retries: when a failed request is sent again, and after how long."""

import random
import time
from collections.abc import Callable
from typing import Final

from .errors import BusyError, FlowGaugeError, UnexpectedAnswerError, UnreachableError, UntrustedError

_FIRST_SECONDS: Final = 0.1
_LONGEST_SECONDS: Final = 5.0
# Proxies answer it if a request stalls on its way to them (RFC 9110, section 15.5.9).
_STALLED: Final = 408


class Attempts:
    """Attempts at one request.

    A request is sent again if the server was busy, loading or stopping, after the time that it named, and if
    there was no connection. If the answer was lost, it is sent again only if that is harmless: an idempotency
    key lets an inspection be made only once.

    Args:
        seconds: for all attempts; no pause starts that would end later.
        repeatable: the request may be sent again even if the server has already carried it out.
    """

    def __init__(
        self, seconds: float, *, repeatable: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._end = clock() + seconds
        self._repeatable = repeatable
        self._longest = _FIRST_SECONDS

    def pause(self, error: FlowGaugeError) -> float:
        """Return the seconds to wait before the next attempt.

        Raises:
            FlowGaugeError: `error`, if there is no further attempt.
        """
        if not self._helps(error):
            raise error
        seconds = error.retry_after if isinstance(error, BusyError) else None
        if seconds is None:
            # Exponential backoff with jitter: clients that failed together do not come back together.
            seconds = random.uniform(self._longest / 2, self._longest)  # noqa: S311
            self._longest = min(_LONGEST_SECONDS, 2 * self._longest)
        if self._clock() + seconds > self._end:
            raise error
        return seconds

    def _helps(self, error: FlowGaugeError) -> bool:
        match error:
            case BusyError():
                return True
            case UntrustedError():
                return False
            case UnreachableError():
                return self._repeatable or not error.sent
            case UnexpectedAnswerError():
                return self._repeatable and (error.server_is_away or error.status == _STALLED)
        return False
