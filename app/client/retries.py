"""When a request that failed is sent again, and after how long."""

import math
import random
import time
from collections.abc import Callable
from typing import Final

from .errors import BusyError, FlowGaugeError, UnexpectedAnswerError, UnreachableError, UntrustedError
from .events import Event, Position

_FIRST_SECONDS: Final = 0.1
_LONGEST_SECONDS: Final = 5.0
# A connection that stood for so long was one: when it is lost, patience begins anew.
_LASTING_SECONDS: Final = 5.0
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
        if isinstance(error, BusyError):
            return True
        if isinstance(error, UntrustedError):
            return False
        if isinstance(error, UnreachableError):
            return self._repeatable or not error.sent
        if not isinstance(error, UnexpectedAnswerError):
            return False
        return self._repeatable and (error.server_is_away or error.status == _STALLED)


class Reconnecting:
    """The attempts at a connection that is to stand for ever: patience counts from when it was lost.

    Args:
        seconds: for all attempts until the server is there again.
        clock: seconds from any beginning.
    """

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._since = math.inf  # when the server let us in
        self._attempts: Attempts | None = None

    def let_in(self) -> None:
        """The server took the connection."""
        self._since = self._clock()

    def heard(self, event: Event) -> None:
        """An event came; a position, with which each connection begins, says nothing of it."""
        if not isinstance(event.data, Position):
            self.served()

    def served(self) -> None:
        """It gave something, or ended the connection in order."""
        self._attempts = None

    def pause(self, error: FlowGaugeError) -> float:
        """Seconds to wait before the next attempt; arguments and errors as of `Attempts.pause`."""
        # One that lets us in and breaks at once is as good as away.
        if self._attempts is None or self._clock() - self._since > _LASTING_SECONDS:
            self._attempts = Attempts(self._seconds, repeatable=True, clock=self._clock)
        self._since = math.inf
        return self._attempts.pause(error)
