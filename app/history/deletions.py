"""Guard against automatic deletions of much history: these wait for an administrator.

A wrong clock can make retention delete too much, and so can a database restored to an earlier state. The
service cannot tell these cases from a setting that was tightened on purpose.
"""

import logging
import threading
from collections.abc import Mapping
from typing import Final, get_args

from sqlalchemy import delete, insert, select

from app.database.clock import iso, now_ms
from app.database.engine import Database
from app.database.notifications import notify
from app.database.shared_tables import held_deletions
from app.errors.problems import Problem
from app.schemas.deletions import DeletionKind, HeldDeletion

logger = logging.getLogger("flowgauge.retention")

KINDS: Final[tuple[DeletionKind, ...]] = get_args(DeletionKind)

# One pass may delete this number (inspections, bytes, files) or this share of all, whichever is more. In
# normal operation a pass runs every minute and finds no orphans.
_ALLOWED: Final[Mapping[DeletionKind, tuple[int, float]]] = {
    "age": (100, 0.1),
    "size": (100 * 2**20, 0.1),
    "orphans": (20, 0),
}
_MEANING: Final[Mapping[DeletionKind, str]] = {
    "age": "retention by age would delete {count} of {total} inspections; is the clock right, and are the "
    "FLOWGAUGE_RETENTION_*_DAYS?",
    "size": "retention by size would delete {count} of {total} bytes of images and maps; is "
    "FLOWGAUGE_RETENTION_BYTES right?",
    "orphans": "{count} of {total} files of images and maps belong to no inspection of the database; was it "
    "set back to an earlier state, or is FLOWGAUGE_DATABASE another one?",
}


class DeletionGuard:
    """Holds deletions that are too large for one pass. Thread-safe.

    Args:
        shared: the database, if other servers may confirm what this one holds.
    """

    def __init__(self, shared: Database | None = None) -> None:
        self._shared = shared
        self._held: dict[DeletionKind, HeldDeletion] = {}
        self._confirmed: dict[DeletionKind, int] = {}
        self._lock = threading.Lock()

    def allows(self, kind: DeletionKind, count: int, total: int) -> bool:
        """Tell if a pass may delete this much now; if not, hold the deletion for an administrator.

        `count` and `total` are in the units of `HeldDeletion`. A confirmation holds for the next pass only,
        and for about the amount that was shown.
        """
        minimum, share = _ALLOWED[kind]
        with self._lock:
            confirmed = self._confirmed.pop(kind, None)
            known = self._held.pop(kind, None)
            if count <= (confirmed or 0) + max(minimum, share * total):
                if known is not None or confirmed is not None:
                    self._share(kind)
                return True
            since = iso(now_ms()) if known is None else known.since
            reason = _MEANING[kind].format(count=count, total=total)
            self._held[kind] = HeldDeletion(kind=kind, count=count, total=total, since=since, reason=reason)
            if self._held[kind] != known:
                self._share(kind)
        if known is None:
            logger.error("nothing is deleted until an administrator confirms it: %s", reason)
        return False

    def held(self) -> list[HeldDeletion]:
        """Return the deletions that wait for an administrator."""
        # Without the lock, which `reload` holds while it waits for the database.
        return [held for kind in KINDS if (held := self._held.get(kind)) is not None]

    def is_confirmed(self, kind: DeletionKind) -> bool:
        return kind in self._confirmed

    def reload(self) -> bool:
        """Read what other servers hold and have confirmed; return True if something is confirmed."""
        assert self._shared is not None  # noqa: S101
        with self._lock:
            with self._shared.read() as connection:
                rows = connection.execute(select(held_deletions)).all()
            self._held = {
                row.kind: HeldDeletion.model_validate_json(row.held) for row in rows if row.held is not None
            }
            self._confirmed = {row.kind: row.confirmed for row in rows if row.held is None}
            return bool(self._confirmed)

    def confirm(self, kind: DeletionKind) -> HeldDeletion:
        """Allow the next pass to delete what is held, or raise the problem conflict."""
        with self._lock:
            held = self._held.pop(kind, None)
            if held is None:
                raise Problem(
                    "conflict", f"No deletion of kind {kind!r} waits: GET /v1/deletions lists them."
                )
            self._confirmed[kind] = held.count
            self._share(kind)
        logger.warning("a deletion was confirmed: %s", held.reason)
        return held

    def _share(self, kind: DeletionKind) -> None:
        """Store a change of a kind for the other servers."""
        if self._shared is None:
            return
        held, confirmed = self._held.get(kind), self._confirmed.get(kind)
        with self._shared.write() as connection:
            connection.execute(delete(held_deletions).where(held_deletions.c.kind == kind))
            if held is not None or confirmed is not None:
                text = None if held is None else held.model_dump_json()
                values = {"kind": kind, "held": text, "confirmed": confirmed or 0}
                connection.execute(insert(held_deletions).values(values))
            notify(connection, "deletions")
