"""When a request that failed is sent again, and after how long."""

import random
import time
from collections.abc import Callable
from typing import Final

from .errors import BusyError, FlowGaugeError, UnexpectedAnswerError, UnreachableError, UntrustedError

_FIRST_SECONDS: Final = 0.1
_LONGEST_SECONDS: Final = 5.0
# What proxies say of a request that stalled on its way to them (RFC 9110, section 15.5.9).
_STALLED: Final = 408


class Attempts:
    """The attempts at one request.

    What the server has refused for the moment (busy, loading, stopping) is sent again when it said, and what
    could not be sent at all is too. Where the answer was lost, the request is sent again only if that changes
    nothing: with an idempotency key an inspection is made once, however often it is asked for.

    Args:
        seconds: for all attempts; a pause that would end later is not begun.
        repeatable: whether the request may have been carried out and be sent all the same.
        clock: seconds from any beginning.
    """

    def __init__(
        self, seconds: float, *, repeatable: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._end = clock() + seconds
        self._repeatable = repeatable
        self._longest = _FIRST_SECONDS

    def pause(self, error: FlowGaugeError) -> float:
        """Seconds to wait before the next attempt.

        Args:
            error: what the last attempt ended with.

        Raises:
            FlowGaugeError: `error`, where there is to be no other.
        """
        if not self._helps(error):
            raise error
        seconds = error.retry_after if isinstance(error, BusyError) else None
        if seconds is None:
            # Any time up to twice as much as before: clients that failed together do not come back together.
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
