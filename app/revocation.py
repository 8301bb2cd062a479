"""Checks during a long answer whether its key was revoked."""

import time
from collections.abc import Callable
from typing import Final

# A revoked key ends what it has begun within so many seconds, and no later than before the next piece.
CHECK_SECONDS: Final = 2.0


class RevocationCheck:
    """Calls a check at most every CHECK_SECONDS, and is true in between.

    Args:
        ask: whether the caller is still allowed.
    """

    def __init__(self, ask: Callable[[], bool]) -> None:
        self._ask = ask
        self._asked = time.monotonic()

    def __call__(self) -> bool:
        """Whether the answer may go on."""
        now = time.monotonic()
        if now - self._asked < CHECK_SECONDS:
            return True
        self._asked = now
        return self._ask()
