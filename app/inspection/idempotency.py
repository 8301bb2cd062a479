"""Idempotency keys: a repeated request gets the first answer again.

A line PC that lost an answer does not know if its part was inspected. With an `Idempotency-Key` it repeats
the request, and the part is neither counted nor stored twice.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from app.errors.problems import Problem
from app.history.history import History
from app.history.queries import EarlierAnswer

CallerKey = tuple[str | None, str]  # caller's key id, idempotency key


class IdempotencyKeys:
    """The idempotency keys of stored inspections; a key is valid as long as its inspection is kept."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._claims = WeakValueDictionary[CallerKey, asyncio.Lock]()

    @asynccontextmanager
    async def claim(
        self, key_id: str | None, key: str, request_sha256: str
    ) -> AsyncIterator[EarlierAnswer | None]:
        """Hold a caller's key during its request; requests with the same key wait.

        Yields the earlier answer to the same request. None means that the request is new.

        Raises:
            Problem: idempotency-key-reused, if the key belongs to another request; history-unavailable.
        """
        async with self._claims.setdefault((key_id, key), asyncio.Lock()):
            earlier = await self._history.find_idempotent(key_id, key)
            if earlier is not None and earlier.request_sha256 != request_sha256:
                raise Problem(
                    "idempotency-key-reused",
                    f"Idempotency-Key {key[:64]!r} was used with another image or other fields; use a new "
                    "key for a new image.",
                )
            yield earlier
