"""The minimum rate at which a client must send or take bytes, after a grace period."""

import asyncio
from collections.abc import Awaitable
from typing import Final, TypeVar

T = TypeVar("T")

# Bytes a second, 2 Mbit/s. Without a minimum, a few slow clients could hold all memory for uploads.
MIN_RATE: Final = 256 * 1024


class MinTransferRate:
    """Times out a transfer that stays below a minimum rate for longer than a grace period.

    Only waiting for the client counts, and fast transfer earns no credit beyond the grace period.

    Args:
        grace: seconds that a client may be behind the minimum rate.
        min_rate: bytes a second; None for MIN_RATE.
    """

    def __init__(self, grace: float, min_rate: float | None = None) -> None:
        self._grace = grace
        self._min_rate = MIN_RATE if min_rate is None else min_rate
        self._left = grace

    async def wait(self, transfer: Awaitable[T]) -> T:
        """Wait for the client within the grace period left.

        Raises:
            TimeoutError: the grace period is used up.
        """
        clock = asyncio.get_running_loop().time
        begun = clock()
        async with asyncio.timeout(self._left):
            result = await transfer
        self._left -= clock() - begun
        return result

    def credit(self, size: int) -> None:
        """Count transferred bytes."""
        self._left = min(self._grace, self._left + size / self._min_rate)
