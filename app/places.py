"""A few places, and what keeps one key from taking all of them."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from app.problems import Problem


class Places:
    """Places for what costs the service something for as long as it lasts.

    A key takes half of them, rounded up, and leaves the rest to others. Where there are no keys, all are for
    whoever comes. They are taken and given back in one thread; others may ask whether there is room.

    Args:
        limit: as many as there are.
        what: takes them, as "exports are being sent", for whoever is refused.
        instead: what who is refused can do.
    """

    def __init__(self, limit: int, what: str, instead: str = "try again later") -> None:
        self._limit = limit
        self._what = what
        self._instead = instead
        self._by_key: Counter[str | None] = Counter()
        self.taken = 0

    def expect_room(self, key_id: str | None) -> None:
        """Refuse what would find no place, before work is done for it; by then the place may be another's.

        Raises:
            Problem: queue-full.
        """
        if self.taken >= self._limit:
            raise Problem("queue-full", f"{self.taken} {self._what}, the limit; {self._instead}.")
        own = self._by_key[key_id]
        if key_id is not None and own >= -(-self._limit // 2):
            raise Problem(
                "queue-full",
                f"{own} {self._what} with this key, and no key gets more than half of the limit; "
                f"{self._instead}.",
            )

    @contextmanager
    def hold(self, key_id: str | None) -> Iterator[None]:
        """Take a place, and give it back.

        Args:
            key_id: whose; None where there are no keys.

        Raises:
            Problem: queue-full.
        """
        self.expect_room(key_id)
        self.taken += 1
        self._by_key[key_id] += 1
        try:
            yield
        finally:
            self.taken -= 1
            self._by_key[key_id] -= 1
            if not self._by_key[key_id]:
                del self._by_key[key_id]
