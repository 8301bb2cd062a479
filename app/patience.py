"""How long a client that is slow is waited for: a grace, and beyond it a least rate."""

import asyncio
from collections.abc import Awaitable
from typing import Final, TypeVar

T = TypeVar("T")

# Bytes a second, 2 Mbit/s. Without it, a few clients that send or take a byte now and then would keep the
# room of all others for as long as they like.
LEAST_RATE: Final = 256 * 1024


class Patience:
    """What is left of a client's grace while bytes go one way or the other.

    Only waiting counts: the server's own slowness is not the client's. And what went fast is no credit beyond
    the grace: otherwise all but the last byte at once would buy minutes.

    Args:
        grace: seconds that a client may be behind the least rate.
        least_rate: bytes a second; None for LEAST_RATE.
    """

    def __init__(self, grace: float, least_rate: float | None = None) -> None:
        self._grace = grace
        self._least_rate = LEAST_RATE if least_rate is None else least_rate
        self._left = grace

    async def wait(self, transfer: Awaitable[T]) -> T:
        """Wait for the client.

        Raises:
            TimeoutError: the grace is used up.
        """
        clock = asyncio.get_running_loop().time
        begun = clock()
        async with asyncio.timeout(self._left):
            result = await transfer
        self._left -= clock() - begun
        return result

    def credit(self, size: int) -> None:
        """Count bytes that went."""
        self._left = min(self._grace, self._left + size / self._least_rate)
