"""The latest answers by idempotency key, in memory: the database may not know them yet, or be away."""

from collections.abc import Mapping
from typing import Any, Final

from app.history.queries import Earlier

MOST: Final = 8192  # of about two kilobytes


class RecentAnswers:
    """Answers to inspections that came with an idempotency key; of one thread.

    Args:
        most: beyond, the oldest are forgotten.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._answers: dict[tuple[str | None, str], Earlier] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        """Remember an inspection by its columns; of several under a key the first counts."""
        key = row.get("idempotency_key")
        if key is None:
            return
        earlier = Earlier(
            row["id"], row.get("request_sha256"), row["answer"], row["map_low"], row["map_middle"]
        )
        self._answers.setdefault((row.get("key_id"), key), earlier)
        if len(self._answers) > self._most:
            del self._answers[next(iter(self._answers))]

    def find(self, key_id: str | None, key: str) -> Earlier | None:
        """The first answer under a key's idempotency key, or None where it is not remembered."""
        return self._answers.get((key_id, key))
