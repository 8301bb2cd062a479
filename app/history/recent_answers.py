"""The latest answers by idempotency key, in memory: the database may not know them yet, or be away."""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from app.history.queries import Earlier

MAX_BYTES: Final = 16 * 1024 * 1024  # some thousand answers


class RecentAnswer(NamedTuple):
    """An answer, and where its record ends in the journal."""

    earlier: Earlier
    position: int


class RecentAnswers:
    """Answers to inspections that came with an idempotency key. May be used from several threads.

    Args:
        max_bytes: of answers; beyond, the oldest are forgotten.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._answers: OrderedDict[tuple[str | None, str], RecentAnswer] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, row: Mapping[str, Any], position: int) -> None:
        """Remember an inspection by its columns; of several under a key the first counts."""
        key = row.get("idempotency_key")
        if key is None:
            return
        earlier = Earlier(
            row["id"], row.get("request_sha256"), row["answer"], row["map_low"], row["map_middle"]
        )
        answer = RecentAnswer(earlier, position)
        with self._lock:
            if self._answers.setdefault((row.get("key_id"), key), answer) is answer:
                self._bytes += len(earlier.answer)
            while self._bytes > self._max_bytes:
                _, oldest = self._answers.popitem(last=False)
                self._bytes -= len(oldest.earlier.answer)

    def find(self, key_id: str | None, key: str) -> RecentAnswer | None:
        """The first answer under a key's idempotency key, or None where it is not remembered."""
        with self._lock:
            return self._answers.get((key_id, key))
