"""Idempotency keys: a repeated request gets the first answer again.

A line PC that lost an answer does not know if its part was inspected. With an `Idempotency-Key` it repeats
the request, and the part is neither counted nor stored twice.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from weakref import WeakValueDictionary

from app.database import clock
from app.errors.problems import Problem
from app.history.history import History
from app.history.idempotency_claims import KeyIsClaimed
from app.history.queries import EarlierAnswer

CallerKey = tuple[str | None, str]  # caller's key id, idempotency key

_WAIT_SECONDS: Final = 10.0  # for the inspection of another server
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5  # seconds between looks for it


class IdempotencyKeys:
    """The idempotency keys of stored inspections; a key is valid as long as its inspection is kept."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._claims = WeakValueDictionary[CallerKey, asyncio.Lock]()

    @asynccontextmanager
    async def claim(
        self, key_id: str | None, key: str, request_sha256: str
    ) -> AsyncIterator[EarlierAnswer | None]:
        """Hold a caller's key during its request; requests with the same key wait, also on other servers.

        Yields the earlier answer to the same request. None means that the request is new.

        Raises:
            Problem: idempotency-key-reused, if the key belongs to another request; history-unavailable.
        """
        async with self._claims.setdefault((key_id, key), asyncio.Lock()):
            token = clock.new_id()
            earlier = await self._find_or_claim(key_id, key, token)
            if earlier is not None and earlier.request_sha256 != request_sha256:
                raise Problem(
                    "idempotency-key-reused",
                    f"Idempotency-Key {key[:64]!r} was used with another image or other fields; use a new "
                    "key for a new image.",
                )
            try:
                yield earlier
            except BaseException:
                if earlier is None:
                    self._history.release(key_id, key, token)
                raise

    async def _find_or_claim(self, key_id: str | None, key: str, token: str) -> EarlierAnswer | None:
        end = time.monotonic() + _WAIT_SECONDS
        pause = _SHORTEST_PAUSE
        while True:
            try:
                return await self._history.find_or_claim(key_id, key, token)
            except KeyIsClaimed:
                if time.monotonic() > end:
                    break
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        raise Problem(
            "history-unavailable",
            f"Another server has Idempotency-Key {key[:64]!r} and has not filed its inspection yet; ask "
            "again later.",
        )
