"""Whether who began to be sent something may have the rest of it: a key may be revoked meanwhile."""

import time
from collections.abc import Callable
from typing import Final

# A revoked key ends what it has begun within so many seconds, and no later than before the next piece.
CHECK_SECONDS: Final = 2.0


class StillWelcome:
    """Asks now and then, and says yes in between.

    Args:
        ask: whether it still may.
    """

    def __init__(self, ask: Callable[[], bool]) -> None:
        self._ask = ask
        self._asked = time.monotonic()

    def __call__(self) -> bool:
        """Whether it may go on."""
        now = time.monotonic()
        if now - self._asked < CHECK_SECONDS:
            return True
        self._asked = now
        return self._ask()
