"""Deletes inspections by age and decision, images and maps by size, and files without an inspection.

Never what was reviewed. Files go in the transaction that deletes their rows: a process that is killed in
between leaves the rows, and the next pass deletes them again.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, update

from app.database.clock import first_id, now_ms
from app.database.engine import DatabaseUnavailable
from app.database.tables import inspections, retention
from app.errors.problems import Problem
from app.events import log
from app.history.deletions import DeletionGuard
from app.history.history import History
from app.history.orphans import find_orphans, find_unused_images
from app.history.rates import DECISIONS
from app.schemas.deletions import DeletionKind, HeldDeletion
from app.schemas.predict import Decision
from app.settings import Settings

logger = logging.getLogger("flowgauge.retention")

_COLUMNS = inspections.columns
_DAY_MS: Final = 24 * 3_600_000
# What expires while a server is off for so long, or for half of the time that it is kept, goes unasked.
_EXPECTED_MS: Final = 14 * _DAY_MS
_EVERY_SECONDS: Final = 60.0
_SWEEP_SECONDS: Final = 24 * 3600.0
# Inspections deleted at a time: what waits to be filed waits as long.
_CHUNK: Final = 200
_CHUNK_EVENTS: Final = 5_000
# When there is too much, a little more than that goes, so that not every minute begins with a count of all.
_DOWN_TO: Final = 0.95


class Retention:
    """Deletes what the settings no longer keep, in the thread that files."""

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

    def confirm(self, kind: DeletionKind) -> HeldDeletion:
        """Delete what is held, soon. Raises the problem conflict if nothing of this kind is."""
        held = self._guard.confirm(kind)
        if kind == "orphans":
            self._next_sweep = 0.0
        self._wake.set()
        return held

    async def once(self) -> None:
        """Delete all that the settings do not keep at this moment, and once a day files without a row.

        Raises:
            DatabaseUnavailable, Problem: the rest is for the next time.
        """
        if self._kept_ms:
            await self._delete_old()
        if self._most_bytes is not None:
            await self._free(self._most_bytes)
        await self._repeat(self._trim_events)
        if time.monotonic() >= self._next_sweep:
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

    async def _delete_old(self) -> None:
        """Delete inspections by age.

        In each pass the time before which they go moves on a minute, or as long as the server was off. Where
        it moves further, the clock is wrong or a setting was changed, and the guard decides.
        """
        before_ms = {decision: int(now_ms() - kept) for decision, kept in self._kept_ms.items()}

        def count_unexpected() -> tuple[int, int]:
            number = select(func.count()).select_from(inspections)
            with self._database.read() as connection:
                rows = connection.execute(select(retention.c.decision, retention.c.last_before_ms))
                last = {row.decision: row.last_before_ms for row in rows}
                old = sum(
                    connection.scalar(number.where(*_old(decision, ms))) or 0
                    for decision, ms in before_ms.items()
                    if decision not in last
                    or ms - last[decision] > min(_EXPECTED_MS, self._kept_ms[decision] / 2)
                )
                return old, (connection.scalar(number) or 0) if old else 0

        if self._guard.allows("age", *await asyncio.to_thread(count_unexpected)):
            for decision, ms in before_ms.items():
                await self._repeat(partial(self._delete_some, decision, ms))

    def _delete_some(self, decision: Decision, before_ms: int) -> bool:
        """Delete old inspections with a decision, with their files; whether there may be more."""
        wanted = _old(decision, before_ms)
        with self._database.write() as connection:
            ids = connection.scalars(
                select(_COLUMNS.id).where(*wanted).order_by(_COLUMNS.id).limit(_CHUNK)
            ).all()
            gone = connection.execute(
                delete(inspections)
                .where(_COLUMNS.id.in_(ids), _COLUMNS.review_revision == 0)
                .returning(_COLUMNS.id, _COLUMNS.image_sha256)
            ).all()
            _note(connection, decision, before_ms, deleted=bool(gone))
            self._remove_files(connection, gone)
        if gone:
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
        to_free = min(total - keep, deletable) if total > most_bytes else 0
        if self._guard.allows("size", to_free, total) and to_free:
            await self._repeat(partial(self._free_some, keep))
        all_reviewed = total > most_bytes and not deletable
        if all_reviewed and not self._complained:
            logger.warning("%d bytes of reviewed inspections, which stay, exceed retention_bytes", total)
        self._complained = all_reviewed

    def _count_bytes(self) -> tuple[int, int]:
        """The bytes of all images and maps, and how many of them may be deleted.

        An image that several inspections share counts with each of them.
        """
        size = func.sum(_COLUMNS.map_bytes + _COLUMNS.image_bytes)
        sizes = select(size, size.filter(_COLUMNS.review_revision == 0)).where(_COLUMNS.has_pictures)
        with self._database.read() as connection:
            total, unreviewed = connection.execute(sizes).one()
        return int(total or 0), int(unreviewed or 0)

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
            self._remove_files(connection, gone)
        freed = sum(row.map_bytes + row.image_bytes for row in gone)
        self._bytes = total - freed
        if gone:
            logger.info("deleted the images of %d inspections, %d bytes", len(gone), freed)
        return bool(ids) and self._bytes > keep

    async def _sweep(self) -> None:
        """Delete files without an inspection, as processes leave them that are killed."""
        # What an earlier process has left is filed first: its files may be there already.
        await self._history.settled()

        def find() -> tuple[list[Path], int]:
            found, total = list[Path](), 0
            for folder in self._pictures.folders():
                files = [path for path in folder.iterdir() if path.is_file()]
                found += find_orphans(self._database, self._pictures, files)
                total += len(files)
            return found, total

        found, total = await asyncio.to_thread(find)

        def confirm_and_remove() -> bool:
            # Once more, while nothing is being filed.
            still = find_orphans(self._database, self._pictures, found)
            if self._guard.allows("orphans", len(still), total):
                for path in still:
                    logger.info("%s belongs to no inspection: removed", path)
                    path.unlink(missing_ok=True)
            return False

        await self._repeat(confirm_and_remove)

    def _remove_files(self, connection: Connection, gone: Sequence[Any]) -> None:
        """Remove the maps of inspections, and images that no other one has."""
        images = find_unused_images(connection, {row.image_sha256 for row in gone})
        maps = (self._pictures.map_path(row.id) for row in gone)
        for path in (*maps, *map(self._pictures.picture_path, images)):
            path.unlink(missing_ok=True)


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
    return ids


def _note(connection: Connection, decision: Decision, before_ms: int, *, deleted: bool) -> None:
    """Remember a pass by age over a decision's inspections."""
    row = retention.c.decision == decision
    known = connection.scalar(select(retention.c.deleted_before_ms).where(row))
    noted = {"last_before_ms": before_ms, "deleted_before_ms": known}
    if deleted:
        noted["deleted_before_ms"] = max(known or 0, before_ms)
    if not connection.execute(update(retention).where(row).values(noted)).rowcount:
        connection.execute(insert(retention).values(decision=decision, **noted))
