"""A limit on concurrent holders, of which no API key takes more than half."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from app.errors.problems import Problem


class ConcurrencyLimit:
    """A limit on concurrent holders, such as streams, exports and drawings.

    One API key takes at most half, rounded up. Without keys, all callers share the limit. Used only in the
    event loop.

    Args:
        holders: their activity, for messages, such as "exports are being sent".
    """

    def __init__(self, limit: int, holders: str) -> None:
        self._limit = limit
        self._holders = holders
        self._held_by_key: Counter[str | None] = Counter()
        self.held = 0

    def require_free(self, key_id: str | None) -> None:
        """Raise the problem queue-full if `hold` would be refused now."""
        if self.held >= self._limit:
            raise Problem("queue-full", f"{self.held} {self._holders}, the limit; try again later.")
        own = self._held_by_key[key_id]
        if key_id is not None and own >= (self._limit + 1) // 2:
            raise Problem(
                "queue-full",
                f"{own} {self._holders} with this key, which may take half of the limit; try again later.",
            )

    @contextmanager
    def hold(self, key_id: str | None) -> Iterator[None]:
        """Count as a holder inside this context, or raise the problem queue-full."""
        self.require_free(key_id)
        self.held += 1
        self._held_by_key[key_id] += 1
        try:
            yield
        finally:
            self.held -= 1
            self._held_by_key[key_id] -= 1
            if not self._held_by_key[key_id]:
                del self._held_by_key[key_id]
