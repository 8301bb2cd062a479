"""Deletes inspections by age and decision, images and maps by size, and files without an inspection.

Never what was reviewed. Files go in the transaction that deletes their rows: a process that is killed in
between leaves the rows, and the next pass deletes them again.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, update

from app.database.clock import first_id, now_ms
from app.database.engine import DatabaseUnavailable
from app.database.tables import inspections, retention
from app.feed import log
from app.history.deletions import DeletionGuard, HeldDeletion, Kind
from app.history.history import History
from app.history.rates import DECISIONS
from app.history.sweep import orphans_in, remove, still_orphans, unused
from app.problems import Problem
from app.schemas.predict import Decision
from app.settings import Settings

logger = logging.getLogger("flowgauge.retention")

_COLUMNS = inspections.columns
_DAY_MS: Final = 24 * 3_600_000
_EVERY_SECONDS: Final = 60.0
_SWEEP_SECONDS: Final = 24 * 3600.0
# Inspections deleted at a time: what waits to be filed waits as long.
_CHUNK: Final = 200
_CHUNK_EVENTS: Final = 5_000
# When there is too much, a little more than that goes, so that not every minute begins with a count of all.
_DOWN_TO: Final = 0.95


class Retention:
    """Deletes what the settings no longer keep. `run` is started once, as a task.

    Args:
        settings: retention_pass_days, retention_review_days, retention_reject_days, retention_bytes and
            events_kept.
        history: of the service; deletes in the thread that files.
        guard: holds what would delete much.
    """

    def __init__(self, settings: Settings, history: History, guard: DeletionGuard) -> None:
        days: dict[Decision, float | None] = {
            "PASS": settings.retention_pass_days,
            "REVIEW": settings.retention_review_days,
            "REJECT": settings.retention_reject_days,
        }
        self._kept_ms = {d: kept * _DAY_MS for d, kept in days.items() if kept is not None}
        self._most_bytes = settings.retention_bytes
        self._events_kept = settings.events_kept
        self._history = history
        self._database = history.database
        self._pictures = history.pictures
        self._guard = guard
        self._wake = asyncio.Event()
        self._next_sweep = 0.0  # of the monotonic clock
        # Bytes when they were last counted, None before, and of what was filed since.
        self._bytes: int | None = None
        self._filed_bytes = 0
        self._complained = False

    def on_filed(self, rows: Sequence[dict[str, Any]]) -> None:
        """Count inspections that were filed; to be called in the writer's thread."""
        self._filed_bytes += sum(row["image_bytes"] + row["map_bytes"] for row in rows)

    async def run(self) -> None:
        """Delete once a minute, until cancelled."""
        while True:
            self._wake.clear()
            try:
                await self.once()
            except (DatabaseUnavailable, Problem) as error:
                logger.warning("nothing could be deleted: %s", error)
            except Exception:  # whatever it was, there is a next minute
                logger.exception("nothing could be deleted")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _EVERY_SECONDS)

    def confirm(self, kind: Kind) -> HeldDeletion:
        """Delete what is held, soon.

        Raises:
            Problem: conflict, if nothing of this kind is held.
        """
        held = self._guard.confirm(kind)
        self._wake.set()
        return held

    async def once(self) -> None:
        """Delete all that the settings do not keep at this moment, and once a day files without a row.

        Raises:
            DatabaseUnavailable: the rest is for the next time.
            Problem: history-unavailable, likewise.
            RuntimeError: the history is closed.
        """
        if self._kept_ms:
            await self._delete_old({d: int(now_ms() - kept) for d, kept in self._kept_ms.items()})
        if self._most_bytes is not None:
            await self._free(self._most_bytes)
        await self._repeat(self._trim_events)
        if time.monotonic() >= self._next_sweep or self._guard.is_confirmed("orphans"):
            await self._sweep()
            self._next_sweep = time.monotonic() + _SWEEP_SECONDS

    async def _repeat(self, step: Callable[[], bool]) -> None:
        """Take a step in the writer's thread, between its batches, until there is nothing left to do."""
        while await asyncio.wrap_future(self._history.in_writer(step)):
            pass

    def _trim_events(self) -> bool:
        """Delete the oldest events, a few at a time; whether there are more."""
        with self._database.write() as connection:
            return log.trim(connection, self._events_kept, _CHUNK_EVENTS) == _CHUNK_EVENTS

    async def _delete_old(self, before_ms: Mapping[Decision, int]) -> None:
        """Delete inspections made before a time, by decision."""

        def count() -> tuple[int, int]:
            counted = select(func.count()).select_from(inspections)
            with self._database.read() as connection:
                old = sum(connection.scalar(counted.where(*_old(d, ms))) or 0 for d, ms in before_ms.items())
                return old, (connection.scalar(counted) or 0) if old else 0

        if self._guard.allows("age", *await asyncio.to_thread(count)):
            for decision, ms in before_ms.items():
                await self._repeat(partial(self._delete_some, decision, ms))

    def _delete_some(self, decision: Decision, before_ms: int) -> bool:
        """Delete old inspections with a decision, with their files; whether there may be more."""
        wanted = _old(decision, before_ms)
        with self._database.write() as connection:
            ids = connection.scalars(
                select(_COLUMNS.id).where(*wanted).order_by(_COLUMNS.id).limit(_CHUNK)
            ).all()
            if not ids:
                return False
            gone = connection.execute(
                delete(inspections)
                .where(_COLUMNS.id.in_(ids), _COLUMNS.review_revision == 0)
                .returning(_COLUMNS.id, _COLUMNS.image_sha256)
            ).all()
            _note(connection, decision, before_ms)
            self._remove_files(
                [row.id for row in gone], unused(connection, {row.image_sha256 for row in gone})
            )
        logger.info("deleted %d inspections (%s) by age", len(gone), decision)
        return len(ids) == _CHUNK

    async def _free(self, most_bytes: int) -> None:
        """Delete the files of the oldest inspections where all take more room than they may."""
        if self._bytes is not None and self._bytes + self._filed_bytes <= most_bytes:
            return
        # What is filed meanwhile is counted twice, rather than not at all.
        self._filed_bytes = 0
        total, deletable = await asyncio.to_thread(self._count_bytes)
        self._bytes = total
        keep = int(_DOWN_TO * most_bytes)
        too_many = total > most_bytes
        to_free = min(total - keep, deletable) if too_many else 0
        if self._guard.allows("size", to_free, total) and to_free:
            await self._repeat(partial(self._free_some, keep))
        if too_many and not deletable and not self._complained:
            logger.warning(
                "%d bytes of images and maps are more than retention_bytes, %d, but all belong to reviewed "
                "inspections, which are kept",
                total,
                most_bytes,
            )
        self._complained = too_many and not deletable

    def _count_bytes(self) -> tuple[int, int]:
        """The bytes of all images and maps, and at most how many of them may be deleted."""
        kept = _COLUMNS.has_pictures
        once = select(func.max(_COLUMNS.image_bytes).label("n")).where(kept).group_by(_COLUMNS.image_sha256)
        maps = select(func.sum(_COLUMNS.map_bytes)).where(kept)
        images = select(func.sum(once.subquery().c.n))
        unreviewed = select(func.sum(_COLUMNS.map_bytes + _COLUMNS.image_bytes)).where(
            kept, _COLUMNS.review_revision == 0
        )
        with self._database.read() as connection:
            total = sum(int(connection.scalar(query) or 0) for query in (maps, images))
            return total, min(total, int(connection.scalar(unreviewed) or 0))

    def _free_some(self, keep: int) -> bool:
        """Delete the files of the oldest inspections, passed ones first; whether there may be more to do."""
        total = self._bytes or 0
        with self._database.write() as connection:
            ids = _oldest(connection, total - keep)
            gone = connection.execute(
                update(inspections)
                .where(_COLUMNS.id.in_(ids), _COLUMNS.review_revision == 0)
                .values(has_pictures=False)
                .returning(_COLUMNS.id, _COLUMNS.image_sha256, _COLUMNS.map_bytes, _COLUMNS.image_bytes)
            ).all()
            sizes = {row.image_sha256: row.image_bytes for row in gone}
            unneeded = unused(connection, sizes.keys())
            self._remove_files([row.id for row in gone], unneeded)
        freed = sum(row.map_bytes for row in gone) + sum(sizes[sha256] for sha256 in unneeded)
        self._bytes = total - freed
        if gone:
            logger.info("deleted the images of %d inspections, %d bytes", len(gone), freed)
        return bool(ids) and self._bytes > keep

    async def _sweep(self) -> None:
        """Delete files without an inspection, as processes leave them that are killed."""
        # What an earlier process has left is filed first: its files may be there already.
        await self._history.settled()
        found: list[Path] = []
        total = 0
        for folder in await asyncio.to_thread(self._pictures.folders):
            some, count = await asyncio.to_thread(orphans_in, folder, self._database, self._pictures)
            found += some
            total += count

        def confirm_and_remove() -> bool:
            # Once more, while nothing is being filed.
            orphans = still_orphans(self._database, self._pictures, found)
            if self._guard.allows("orphans", len(orphans), total):
                for path in orphans:
                    logger.info("%s belongs to no inspection: removed", path)
                remove(orphans)
            return False

        await self._repeat(confirm_and_remove)

    def _remove_files(self, ids: Sequence[str], images: Sequence[str]) -> None:
        files: list[Path] = [self._pictures.map_path(identifier) for identifier in ids]
        remove([*files, *(self._pictures.picture_path(sha256) for sha256 in images)])


def _old(decision: Decision, before_ms: int) -> list[ColumnElement[bool]]:
    return [
        _COLUMNS.decision == decision,
        _COLUMNS.id < first_id(before_ms),
        _COLUMNS.review_revision == 0,
    ]


def _oldest(connection: Connection, to_free: int) -> list[str]:
    """The inspections whose files are to go next, passed ones first, as many as may be needed."""
    ids: list[str] = []
    for decision in DECISIONS:
        query = (
            select(_COLUMNS.id, (_COLUMNS.map_bytes + _COLUMNS.image_bytes).label("size"))
            .where(_COLUMNS.decision == decision, _COLUMNS.has_pictures, _COLUMNS.review_revision == 0)
            .order_by(_COLUMNS.id)
            .limit(_CHUNK - len(ids))
        )
        for row in connection.execute(query):
            if to_free <= 0:
                return ids
            ids.append(row.id)
            to_free -= row.size
        if len(ids) == _CHUNK:
            break
    return ids


def _note(connection: Connection, decision: Decision, before_ms: int) -> None:
    """Remember up to when a decision's inspections have been deleted."""
    row = retention.c.decision == decision
    known = connection.scalar(select(retention.c.deleted_before_ms).where(row))
    if known is None:
        connection.execute(insert(retention).values(decision=decision, deleted_before_ms=before_ms))
    elif known < before_ms:
        connection.execute(update(retention).where(row).values(deleted_before_ms=before_ms))
