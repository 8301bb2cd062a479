"""Letting go of inspections: by age and decision, and of their pictures by bytes; never of what was reviewed.

Rows go first, in a transaction that leaves out what has been reviewed by then; then the files that no row
needs any more. A process that is killed in between leaves files without a row, which are swept up later.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, select, update

from app.database.clock import first_id, now_ms, time_of
from app.database.engine import Database, DatabaseUnavailable
from app.database.tables import inspections, retention
from app.feed import log
from app.history.ageless import let_pass
from app.history.orphans import remove, sweep, unused
from app.history.pictures import Pictures
from app.history.rates import DECISIONS
from app.history.steady_clock import SteadyClock, monotonic_ms
from app.schemas.predict import Decision
from app.settings import Settings

logger = logging.getLogger("flowgauge.retention")

_COLUMNS = inspections.columns
_DAY_MS: Final = 24 * 3_600_000
_EVERY_SECONDS: Final = 60.0
# Inspections deleted at a time: what waits to be filed waits as long.
_CHUNK: Final = 200
_CHUNK_EVENTS: Final = 5_000
# When there is too much, a little more than that goes, so that not every minute begins with a count of all.
_DOWN_TO: Final = 0.95
# When nothing but reviewed pictures is left and they are too many, every look reads all of them: so many
# rounds, about an hour, go by without one.
_ROUNDS_OFF: Final = 60


class Retention:
    """Deletes what the settings no longer keep. `run` is started once, as a task.

    Args:
        settings: retention_pass_days, retention_review_days, retention_reject_days, retention_bytes and
            events_kept.
        database: of the history.
        pictures: its files.
        in_writer: calls a function in the thread that files, see `History.in_writer`.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        pictures: Pictures,
        in_writer: Callable[[Callable[[], bool]], "Future[bool]"],
    ) -> None:
        days: dict[Decision, float | None] = {
            "PASS": settings.retention_pass_days,
            "REVIEW": settings.retention_review_days,
            "REJECT": settings.retention_reject_days,
        }
        self._kept_ms = {d: kept * _DAY_MS for d, kept in days.items() if kept is not None}
        self._most_bytes = settings.retention_bytes
        self._events_kept = settings.events_kept
        self._database = database
        self._pictures = pictures
        self._in_writer = in_writer
        # At least what is there; None until it was counted.
        self._bytes: int | None = None
        self._filed_bytes = 0
        self._to_free = 0
        self._rounds_off = 0
        self._complained = False
        self._started_ms = now_ms()
        self._clock: SteadyClock | None = None
        self._now_ms = 0  # as of this round
        # What time it is for inspections without an age, and when that was looked at; None before the first.
        self._ran_ms = 0
        self._looked_ms: int | None = None
        # The next folder to look through, from another one on after every start.
        self._folder = self._started_ms // 1000 % 256

    def on_filed(self, rows: Sequence[dict[str, Any]]) -> None:
        """Count inspections that were filed; to be called in the writer's thread."""
        self._filed_bytes += sum(row["image_bytes"] + row["map_bytes"] for row in rows)

    async def run(self) -> None:
        """Delete once a minute, until cancelled."""
        while True:
            try:
                await self.once()
            except DatabaseUnavailable:
                logger.warning("nothing could be deleted: the database does not answer")
            except Exception:  # whatever it was, there is a next minute
                logger.exception("nothing could be deleted")
            await asyncio.sleep(_EVERY_SECONDS)

    async def once(self) -> None:
        """Delete all that the settings do not keep at this moment, and look for files without a row.

        Raises:
            DatabaseUnavailable: the rest is for the next time.
            RuntimeError: the history is closed.
        """
        await self._repeat(self._let_pass)
        if self._kept_ms:
            await self._repeat(self._tell_time)
            for decision, kept_ms in self._kept_ms.items():
                before_ms = int(self._now_ms - kept_ms)
                by_id = and_(_COLUMNS.seen_ms.is_(None), _COLUMNS.id < first_id(before_ms))
                await self._repeat(partial(self._delete_rows, decision, by_id, before_ms))
                ageless = _COLUMNS.seen_ms.between(1, int(self._ran_ms - kept_ms))
                await self._repeat(partial(self._delete_rows, decision, ageless, before_ms))
        if self._most_bytes is not None:
            await self._free(self._most_bytes)
        await self._repeat(self._trim_events)
        folder, self._folder = f"{self._folder:02x}", (self._folder + 1) % 256
        await self._repeat(partial(sweep, self._database, self._pictures, folder))

    def _trim_events(self) -> bool:
        """Delete the oldest events, a few at a time; whether there are more."""
        with self._database.write() as connection:
            return log.trim(connection, self._events_kept, _CHUNK_EVENTS) == _CHUNK_EVENTS

    def _let_pass(self) -> bool:
        """Let inspections without an age grow older by what has passed since the last round."""
        looked, self._looked_ms = self._looked_ms, monotonic_ms()
        passed = 0 if looked is None else self._looked_ms - looked
        with self._database.write() as connection:
            ran_ms = let_pass(connection, passed)
            if ran_ms and not self._ran_ms:
                logger.warning(
                    "%d inspections have ids that do not tell their age, made while the clock was behind or "
                    "after others from the future: they are kept by how long the server runs",
                    connection.scalar(select(func.count()).where(_COLUMNS.seen_ms.is_not(None))),
                )
            self._ran_ms = ran_ms
        return False

    def _tell_time(self) -> bool:
        """Look at the clock; at first, at the newest inspection that an earlier process has made too."""
        if self._clock is None:
            query = select(func.max(_COLUMNS.id)).where(_COLUMNS.id < first_id(self._started_ms))
            with self._database.read() as connection:
                newest = connection.scalar(query)
            self._clock = SteadyClock(None if newest is None else time_of(newest))
        self._now_ms = self._clock.now_ms()
        return False

    async def _repeat(self, step: Callable[[], bool]) -> None:
        """Take a step in the writer's thread, between its batches, until there is nothing left to do."""
        while await asyncio.wrap_future(self._in_writer(step)):
            pass

    def _delete_rows(self, decision: Decision, old: ColumnElement[bool], before_ms: int) -> bool:
        """Delete old inspections with a decision, with their files; whether there may be more."""
        wanted = _COLUMNS.decision == decision, old, _COLUMNS.review_revision == 0
        query = select(_COLUMNS.id).where(*wanted).order_by(_COLUMNS.id).limit(_CHUNK)
        with self._database.write() as connection:
            ids = connection.scalars(query).all()
            if not ids:
                return False
            gone = connection.execute(
                delete(inspections)
                .where(_COLUMNS.id.in_(ids), _COLUMNS.review_revision == 0)
                .returning(_COLUMNS.id, _COLUMNS.image_sha256)
            ).all()
            unneeded = unused(connection, {sha256 for _, sha256 in gone})
            _note(connection, decision, before_ms)
        self._remove_files([identifier for identifier, _ in gone], unneeded)
        logger.info("deleted %d inspections (%s) by age", len(gone), decision)
        return len(ids) == _CHUNK

    async def _free(self, most_bytes: int) -> None:
        if self._rounds_off:
            self._rounds_off -= 1
        elif self._bytes is None or self._bytes + self._filed_bytes > most_bytes:
            # What is filed meanwhile is counted twice, rather than not at all.
            self._filed_bytes = 0
            self._bytes = await asyncio.to_thread(self._count_bytes)
            if self._bytes <= most_bytes:
                self._complained = False
            else:
                self._to_free = self._bytes - int(_DOWN_TO * most_bytes)
                await self._repeat(partial(self._free_some, most_bytes))

    def _count_bytes(self) -> int:
        kept = _COLUMNS.has_pictures
        once = select(func.max(_COLUMNS.image_bytes).label("n")).where(kept).group_by(_COLUMNS.image_sha256)
        with self._database.read() as connection:
            maps = connection.scalar(select(func.sum(_COLUMNS.map_bytes)).where(kept)) or 0
            return int(maps) + int(connection.scalar(select(func.sum(once.subquery().c.n))) or 0)

    def _free_some(self, most_bytes: int) -> bool:
        """Delete the files of the oldest inspections, passed ones first; whether there may be more to do."""
        with self._database.write() as connection:
            ids = self._oldest(connection)
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
        self._bytes = (self._bytes or 0) - freed
        self._to_free -= freed
        if gone:
            logger.info("deleted the pictures of %d inspections, %d bytes", len(gone), freed)
        if not ids and self._bytes > most_bytes:
            self._rounds_off = _ROUNDS_OFF
            if not self._complained:
                self._complained = True
                logger.warning(
                    "%d bytes of pictures and maps are more than retention_bytes, %d, but all belong to "
                    "reviewed inspections, which are kept",
                    self._bytes,
                    most_bytes,
                )
        return bool(ids) and self._to_free > 0

    def _oldest(self, connection: Connection) -> list[str]:
        """The inspections whose files are to go next, as many as may be needed."""
        ids: list[str] = []
        left = self._to_free
        for decision in DECISIONS:
            for identifier, size in self._by_age(connection, decision, _CHUNK - len(ids)):
                if left <= 0:
                    return ids
                ids.append(identifier)
                left -= size
            if len(ids) == _CHUNK:
                return ids
        return ids

    def _by_age(self, connection: Connection, decision: Decision, most: int) -> list[tuple[str, int]]:
        """The oldest inspections with a decision that have files and no review; ids and bytes."""
        query = (
            select(_COLUMNS.id, _COLUMNS.map_bytes + _COLUMNS.image_bytes, _COLUMNS.seen_ms)
            .where(_COLUMNS.decision == decision, _COLUMNS.has_pictures, _COLUMNS.review_revision == 0)
            .limit(most)
        )
        by_id = connection.execute(query.where(_COLUMNS.seen_ms.is_(None)).order_by(_COLUMNS.id)).all()
        ageless = connection.execute(
            query.where(_COLUMNS.seen_ms > 0).order_by(_COLUMNS.seen_ms, _COLUMNS.id)
        ).all()
        if not ageless:
            return [(identifier, size) for identifier, size, _ in by_id]
        # As if the clock had been right: they were seen so long before the newest, or before now.
        newest = time_of(connection.scalars(select(func.max(_COLUMNS.id))).one())
        behind = max(newest, now_ms()) - self._ran_ms
        merged = [(time_of(identifier), identifier, size) for identifier, size, _ in by_id]
        merged += [(seen_ms + behind, identifier, size) for identifier, size, seen_ms in ageless]
        return [(identifier, size) for _, identifier, size in sorted(merged)[:most]]

    def _remove_files(self, ids: Collection[str], pictures: Collection[str]) -> None:
        for identifier in ids:
            remove(self._pictures.map_path(identifier))
        for sha256 in pictures:
            remove(self._pictures.picture_path(sha256))


def _note(connection: Connection, decision: Decision, before_ms: int) -> None:
    """Remember up to when a decision's inspections have been deleted."""
    row = retention.c.decision == decision
    known = connection.scalar(select(retention.c.deleted_before_ms).where(row))
    if known is None:
        connection.execute(insert(retention).values(decision=decision, deleted_before_ms=before_ms))
    elif known < before_ms or known > now_ms():  # noted by a clock that was wrong
        connection.execute(update(retention).where(row).values(deleted_before_ms=before_ms))
