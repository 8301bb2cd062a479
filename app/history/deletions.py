"""The guard of all that deletes by itself: what would take much of the history waits for a person.

A retention pass may meet a clock that is a year ahead, and a sweep a database that was set back to an earlier
state. Both would delete what is wanted. Neither can be told from a setting that was tightened on purpose.
"""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

from app.database.clock import now_ms
from app.problems import Problem

logger = logging.getLogger("flowgauge.retention")

Kind = Literal["age", "size", "orphans"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

# What one pass may delete by itself: shares of the inspections, of the bytes, of the files. In normal
# operation a pass comes every minute, and there are no orphans at all.
SHARES: Final[Mapping[Kind, float]] = {"age": 0.1, "size": 0.1, "orphans": 0.001}
_MEANING: Final[Mapping[Kind, str]] = {
    "age": "retention by age would delete {count} of {total} inspections; is the clock right, and are the "
    "FLOWGAUGE_RETENTION_*_DAYS?",
    "size": "retention by size would delete {count} of {total} bytes of images and maps; is "
    "FLOWGAUGE_RETENTION_BYTES right?",
    "orphans": "{count} of {total} files of images and maps belong to no inspection of the database; was it "
    "set back to an earlier state, or is FLOWGAUGE_DATABASE another one?",
}


@dataclass(frozen=True)
class HeldDeletion:
    """A deletion that waits for a person.

    Attributes:
        kind: what deletes.
        count: how much it would delete: inspections (age), bytes (size) or files (orphans).
        total: how much there is.
        since_ms: since when it waits, in milliseconds since 1970, UTC.
    """

    kind: Kind
    count: int
    total: int
    since_ms: int

    @property
    def reason(self) -> str:
        """What would be deleted, and what to look at before it is confirmed."""
        return _MEANING[self.kind].format(count=self.count, total=self.total)


class DeletionGuard:
    """Holds passes that would delete more than a small share. May be used from several threads at once."""

    def __init__(self) -> None:
        self._held: dict[Kind, HeldDeletion] = {}
        self._confirmed: dict[Kind, int] = {}
        self._lock = threading.Lock()

    def allows(self, kind: Kind, count: int, total: int) -> bool:
        """Tell whether a pass may delete so much now; else it is held until a person confirms it.

        A confirmation is spent by the next pass, and is for about as much as was shown.
        """
        with self._lock:
            confirmed = self._confirmed.pop(kind, 0)
            known = self._held.pop(kind, None)
            if count <= confirmed + SHARES[kind] * total:
                return True
            held = HeldDeletion(kind, count, total, now_ms() if known is None else known.since_ms)
            self._held[kind] = held
        if known is None:
            logger.error("nothing is deleted until an administrator confirms it: %s", held.reason)
        return False

    def held(self) -> list[HeldDeletion]:
        """The deletions that wait for a person."""
        with self._lock:
            return [self._held[kind] for kind in KINDS if kind in self._held]

    def is_confirmed(self, kind: Kind) -> bool:
        """Whether a person has confirmed a deletion that has not begun yet."""
        with self._lock:
            return kind in self._confirmed

    def confirm(self, kind: Kind) -> HeldDeletion:
        """Let the next pass delete what is held.

        Raises:
            Problem: conflict, if nothing of this kind is held.
        """
        with self._lock:
            held = self._held.pop(kind, None)
            if held is None:
                raise Problem(
                    "conflict", f"No deletion of kind {kind!r} waits: GET /v1/deletions lists them."
                )
            self._confirmed[kind] = held.count
        logger.warning("a deletion was confirmed: %s", held.reason)
        return held
