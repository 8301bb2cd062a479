"""One inspection per idempotency key: who sends a request again gets the first answer again.

A line PC that lost the answer does not know whether its part was inspected. With an `Idempotency-Key` it
sends the request once more, and the part is neither counted nor kept twice.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from app.errors.problems import Problem
from app.history.history import History
from app.history.queries import EarlierAnswer

CallerKey = tuple[str | None, str]  # who sent it, and the idempotency key


class IdempotencyKeys:
    """Looks after the idempotency keys of stored inspections. They count for as long as those are kept."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._claims = WeakValueDictionary[CallerKey, asyncio.Lock]()

    @asynccontextmanager
    async def claim(
        self, key_id: str | None, key: str, request_sha256: str
    ) -> AsyncIterator[EarlierAnswer | None]:
        """Hold a caller's key while its request is answered; another with the same key waits meanwhile.

        Gives what the same request was answered before, or None: then it is to be answered and kept now.

        Raises:
            Problem: idempotency-key-reused, where the key belongs to another request; history-unavailable.
        """
        async with self._claims.setdefault((key_id, key), asyncio.Lock()):
            earlier = await self._history.find_idempotent(key_id, key)
            if earlier is not None and earlier.request_sha256 != request_sha256:
                raise Problem(
                    "idempotency-key-reused",
                    f"Idempotency-Key {key[:64]!r} came with another image or other fields before; use a new "
                    "key for a new image.",
                )
            yield earlier
