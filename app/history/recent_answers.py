"""Recent answers by idempotency key, in memory for when the database lags or is away."""

from collections.abc import Mapping
from typing import Any, Final

from app.history.queries import EarlierAnswer

MAX_BYTES: Final = 16 * 1024 * 1024  # some thousand answers; many regions make 80 KiB


class RecentAnswers:
    """Answers to inspections with an idempotency key. For one thread only.

    Args:
        max_bytes: size limit; the oldest answers are dropped first.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._room = max_bytes
        self._answers: dict[tuple[str | None, str], EarlierAnswer] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        """Remember an inspection by its columns; the first one of a key stays."""
        name: str | None = row.get("idempotency_key")
        if name is None or (key := (row.get("key_id"), name)) in self._answers:
            return
        answer: str = row["answer"]
        self._answers[key] = EarlierAnswer(
            row["id"], row.get("request_sha256"), answer, row["map_low"], row["map_middle"]
        )
        self._room -= len(answer)
        while self._room < 0:
            oldest = self._answers.pop(next(iter(self._answers)))
            self._room += len(oldest.answer)

    def find(self, key_id: str | None, key: str) -> EarlierAnswer | None:
        """Return the first answer of a caller's idempotency key, or None."""
        return self._answers.get((key_id, key))
