"""Retention: deletes inspections by age, images and maps by size, and orphaned files.

Reviewed inspections are never deleted. The audit sample is kept as long as the decision that is kept
longest, because its reviewers need the images. Files are deleted within the transaction that deletes their
rows. If the process is killed in between, the rows stay, and the next pass deletes them again.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, delete, func, select, update

from app.database import locks
from app.database.clock import now_ms
from app.database.engine import DatabaseUnavailable
from app.database.tables import inspections, retention
from app.errors.problems import Problem
from app.events import log
from app.history.deletions import DeletionGuard
from app.history.history import History
from app.history.inspection_files import image_name, map_name
from app.history.orphans import find_orphans, find_unused_images
from app.history.retention_queries import CHUNK, Kind, find_oldest, older_than, record_pass
from app.schemas.deletions import DeletionKind, HeldDeletion
from app.schemas.predict import Decision
from app.settings import Settings
from app.storage.store import StoreUnavailable

logger = logging.getLogger("flowgauge.retention")

_COLUMNS = inspections.columns
_DAY_MS: Final = 24 * 3_600_000
# Inspections that expire while a server is off are deleted without confirmation if it was off for at most
# this long, and for at most half of their retention time.
_MAX_OFFLINE_MS: Final = 14 * _DAY_MS
_INTERVAL_SECONDS: Final = 60.0
_SWEEP_SECONDS: Final = 24 * 3600.0
_COUNT_SECONDS: Final = 600.0
_CHUNK_EVENTS: Final = 5_000
# While a deletion waits for servers that store, others that want to store wait behind it.
_LOCK_MS: Final = 5_000
# Deleting goes down to this share of the limit, so that not every pass counts all bytes.
_TARGET_SHARE: Final = 0.95


class Retention:
    """Deletes what the settings no longer keep, in the history's writer."""

    def __init__(self, settings: Settings, history: History, guard: DeletionGuard) -> None:
        days: dict[Decision, float | None] = {
            "PASS": settings.retention_pass_days,
            "REVIEW": settings.retention_review_days,
            "REJECT": settings.retention_reject_days,
        }
        self._kept_ms: dict[Kind, float] = {d: n * _DAY_MS for d, n in days.items() if n is not None}
        if len(self._kept_ms) == len(days):
            self._kept_ms["audit"] = max(self._kept_ms.values())
        self._max_bytes = settings.retention_bytes
        self._events_kept = settings.events_kept
        self._history = history
        self._database = history.database
        self._files = history.files
        self._guard = guard
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None  # while passes run
        self._next_sweep = 0.0  # of the monotonic clock
        # Total bytes at the last count (None before the first), and bytes stored since.
        self._bytes: int | None = None
        self._filed_bytes = 0
        self._next_count = 0.0  # of the monotonic clock, where several servers store
        self._has_warned = False

    def on_filed(self, rows: Sequence[dict[str, Any]]) -> None:
        """Count the bytes of new inspections; called in the writer's thread."""
        self._filed_bytes += sum(row["image_bytes"] + row["map_bytes"] for row in rows)

    async def run(self) -> None:
        """Run a pass every minute until cancelled."""
        self._bytes = None  # another server may have deleted meanwhile
        self._loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            try:
                await self.once()
            except (DatabaseUnavailable, StoreUnavailable, Problem) as error:
                logger.warning("retention could not delete: %s", error)
            except Exception:  # the next pass tries again
                logger.exception("retention could not delete")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _INTERVAL_SECONDS)

    def confirm(self, kind: DeletionKind) -> HeldDeletion:
        """Let the next pass delete what is held; raises the problem conflict if nothing is."""
        held = self._guard.confirm(kind)
        self.wake()
        return held

    def wake(self) -> None:
        """Run a pass now. May be called from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._wake.set)

    def on_deletions(self) -> None:
        """Run a pass if another server has confirmed a deletion; a callback of the notifications."""
        if self._guard.reload():
            self.wake()

    async def once(self) -> None:
        """Run one pass; once a day it also deletes orphaned files.

        Raises:
            DatabaseUnavailable, StoreUnavailable, Problem: the pass stopped; the next one continues.
        """
        if self._kept_ms:
            await self._delete_by_age()
        if self._max_bytes is not None:
            await self._delete_by_size(self._max_bytes)
        await self._repeat(self._trim_events)
        if time.monotonic() >= self._next_sweep or self._guard.is_confirmed("orphans"):
            await self._sweep()
            self._next_sweep = time.monotonic() + _SWEEP_SECONDS

    async def _repeat(self, step: Callable[[], bool]) -> None:
        """Repeat a step in the writer's thread, between its batches, until it returns False."""
        while await asyncio.wrap_future(self._history.run_in_writer(step)):
            pass

    def _trim_events(self) -> bool:
        """Delete some of the oldest events; return True if more remain."""
        with self._database.write() as connection:
            return log.trim(connection, self._events_kept, _CHUNK_EVENTS) == _CHUNK_EVENTS

    async def _delete_by_age(self) -> None:
        """Delete inspections by age.

        The limit moves by a minute per pass, or by the time that the server was off. If it moves further, the
        clock is wrong or a setting was changed, and the guard decides.
        """
        before_ms = {kind: int(now_ms() - kept) for kind, kept in self._kept_ms.items()}

        def count_unexpected() -> tuple[int, int]:
            number = select(func.count()).select_from(inspections)
            with self._database.read() as connection:
                rows = connection.execute(select(retention.c.decision, retention.c.last_before_ms))
                last = {row.decision: row.last_before_ms for row in rows}
                old = sum(
                    connection.scalar(number.where(*older_than(kind, ms))) or 0
                    for kind, ms in before_ms.items()
                    if kind not in last or ms - last[kind] > min(_MAX_OFFLINE_MS, self._kept_ms[kind] / 2)
                )
                return old, (connection.scalar(number) or 0) if old else 0

        unexpected = await asyncio.to_thread(count_unexpected)
        if await asyncio.to_thread(self._guard.allows, "age", *unexpected):
            for kind, ms in before_ms.items():
                await self._repeat(partial(self._delete_some, kind, ms))

    def _delete_some(self, kind: Kind, before_ms: int) -> bool:
        """Delete some old inspections with their files; return True if more may remain."""
        conditions = older_than(kind, before_ms)
        with self._deleting() as connection:
            ids = connection.scalars(
                select(_COLUMNS.id).where(*conditions).order_by(_COLUMNS.id).limit(CHUNK)
            ).all()
            gone = connection.execute(
                delete(inspections)
                .where(_COLUMNS.id.in_(ids), _COLUMNS.review_revision == 0)
                .returning(_COLUMNS.id, _COLUMNS.image_sha256)
            ).all()
            record_pass(connection, kind, before_ms, deleted=bool(gone))
            self._remove_files(connection, gone)
        if gone:
            logger.info("deleted %d inspections (%s) by age", len(gone), kind)
        return len(ids) == CHUNK

    async def _delete_by_size(self, max_bytes: int) -> None:
        """Delete the files of the oldest inspections if all exceed the size limit."""
        # What other servers store is not counted here.
        is_recent = self._database.is_sqlite or time.monotonic() < self._next_count
        if is_recent and self._bytes is not None and self._bytes + self._filed_bytes <= max_bytes:
            return
        self._next_count = time.monotonic() + _COUNT_SECONDS
        # Inspections stored meanwhile are counted twice rather than never.
        self._filed_bytes = 0
        total, deletable = await asyncio.to_thread(self._count_bytes)
        self._bytes = total
        keep = int(_TARGET_SHARE * max_bytes)
        to_free = min(total - keep, deletable) if total > max_bytes else 0
        if await asyncio.to_thread(self._guard.allows, "size", to_free, total) and to_free:
            await self._repeat(partial(self._delete_some_files, keep))
        all_reviewed = total > max_bytes and not deletable
        if all_reviewed and not self._has_warned:
            logger.warning(
                "%d bytes of reviewed inspections, which are never deleted, exceed retention_bytes", total
            )
        self._has_warned = all_reviewed

    def _count_bytes(self) -> tuple[int, int]:
        """Return the bytes of all images and maps, and of those that may be deleted.

        A shared image counts with each of its inspections.
        """
        size = func.sum(_COLUMNS.map_bytes + _COLUMNS.image_bytes)
        sizes = select(size, size.filter(_COLUMNS.review_revision == 0)).where(_COLUMNS.has_pictures)
        with self._database.read() as connection:
            total, unreviewed = connection.execute(sizes).one()
        return int(total or 0), int(unreviewed or 0)

    def _delete_some_files(self, keep: int) -> bool:
        """Delete files of some of the oldest inspections, PASS first; return True if more remain."""
        total = self._bytes or 0
        with self._deleting() as connection:
            ids = find_oldest(connection, total - keep)
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
        """Delete orphaned files, which killed processes leave behind."""
        # First store the journal of an earlier process: its files may exist already.
        await self._history.wait_until_filed()

        def find() -> tuple[list[str], int]:
            found, total = list[str](), 0
            for names in self._files.names():
                found += find_orphans(self._database, names)
                total += len(names)
            return found, total

        found, total = await asyncio.to_thread(find)

        def find_again() -> list[str]:
            with self._database.locked(locks.FILES, wait_ms=_LOCK_MS):
                return find_orphans(self._database, found)

        orphans = await asyncio.wrap_future(self._history.run_in_writer(find_again))
        if await asyncio.to_thread(self._guard.allows, "orphans", len(orphans), total):
            await self._repeat(partial(self._remove_orphans, orphans))

    def _remove_orphans(self, orphans: list[str]) -> bool:
        """Delete some orphans; return True if more remain."""
        some, orphans[:CHUNK] = orphans[:CHUNK], []
        with self._database.locked(locks.FILES, wait_ms=_LOCK_MS):
            still = find_orphans(self._database, some)
            self._files.remove(still)
        for name in still:
            logger.info("%s belongs to no inspection: deleted", name)
        return bool(orphans)

    @contextmanager
    def _deleting(self) -> Iterator[Connection]:
        """Open a transaction while no server stores files: one may be about to reuse an image."""
        with self._database.write() as connection:
            locks.take(connection, locks.FILES, wait_ms=_LOCK_MS)
            yield connection

    def _remove_files(self, connection: Connection, gone: Sequence[Any]) -> None:
        """Delete the maps of inspections, and images that no other inspection has."""
        images = find_unused_images(connection, {row.image_sha256 for row in gone})
        self._files.remove([*(map_name(row.id) for row in gone), *map(image_name, images)])
