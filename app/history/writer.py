"""The history's writer: one thread that files the journal's records, and in which everything is deleted."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from sqlalchemy import insert, select
from sqlalchemy.exc import DataError, IntegrityError

from app.database.engine import Database, DatabaseUnavailable
from app.database.tables import inspections
from app.events.log import append
from app.events.new_events import inspection_event
from app.history.inspection_files import InspectionFiles
from app.history.journal import Journal
from app.history.journal_record import JournalRecord

logger = logging.getLogger("flowgauge.history")

T = TypeVar("T")
Rows = Sequence[dict[str, Any]]

_FIRST_DELAY, _LONGEST_DELAY = 0.2, 10.0  # seconds between attempts


class HistoryWriter:
    """Brings the journal's records into the database, and their files into their places.

    Files first, then the rows in one transaction, then the journal forgets them: killed anywhere, the next
    process does the rest, and an inspection is in the database with its files, once. A disk or a database
    that fails is tried again, at longer and longer intervals; the journal keeps what waits. A record that the
    database refuses is set aside, so that it does not keep the others waiting.

    Attributes:
        filed: bytes of the journal's records that are in the database and were told to the callbacks.
        failure: why nothing can be filed at present, for people; None while all is well.
        database_is_away: whether it did not answer, the recorder or somebody else, since something was filed.
    """

    def __init__(
        self,
        database: Database,
        pictures: InspectionFiles,
        journal: Journal,
        callbacks: Sequence[Callable[[Rows], None]],
    ) -> None:
        self._database = database
        self._pictures = pictures
        self._journal = journal
        self._callbacks = callbacks
        self.filed = 0
        self.failure: str | None = None
        self.database_is_away = False
        self._thread = ThreadPoolExecutor(1, "history")
        self._delay = 0.0
        self._retry: threading.Timer | None = None

    def wake(self) -> None:
        """File what waits: a batch, and after what others have to do in the thread the next."""
        self._thread.submit(self._file_next)

    def run(self, task: Callable[[], T]) -> "Future[T]":
        """Call a function in the thread, between two batches.

        Raises:
            RuntimeError: the recorder is closed.
        """
        return self._thread.submit(task)

    def file_until(self, position: int) -> bool:
        """File all records of the journal up to a position, in the thread; False if that fails now."""
        while self.filed < position and self._attempt():
            pass
        return self.filed >= position

    def close(self, seconds: float) -> None:
        """File what waits, for so long at most, and end the thread; the rest stays in the journal."""
        end = time.monotonic() + seconds

        def file_rest() -> None:
            while self._journal.backlog and time.monotonic() < end and self._attempt():
                pass
            self._thread.shutdown(wait=False, cancel_futures=True)

        self._thread.submit(file_rest).result()
        self._thread.shutdown()
        if self._retry is not None:
            self._retry.cancel()

    def _file_next(self) -> None:
        if self.failure is None and self._attempt() and self._journal.backlog:
            self.wake()

    def _attempt(self) -> bool:
        """File a batch; False if it cannot be done, and is tried again later."""
        try:
            self._file_batch()
        except Exception as error:
            self._delay = min(max(2 * self._delay, _FIRST_DELAY), _LONGEST_DELAY)
            # With its traceback once, not every ten seconds for a night.
            logger.exception(
                "inspections cannot be filed, next attempt in %.1f s", self._delay, exc_info=not self.failure
            )
            self.database_is_away = isinstance(error, DatabaseUnavailable)
            self.failure = f"{type(error).__name__}: {error}"
            if self._retry is None:
                self._retry = threading.Timer(self._delay, self._try_again)
                self._retry.daemon = True
                self._retry.start()
            return False
        self._delay = 0.0
        return True

    def _try_again(self) -> None:
        def attempt() -> None:
            self._retry = None
            self._attempt()

        with suppress(RuntimeError):  # closed meanwhile
            self._thread.submit(attempt)

    def _file_batch(self) -> None:
        records = self._journal.read()
        rows = self._file(records) if records else []
        if records:
            self._journal.drop()
        if records or self.failure is not None:
            self.database_is_away = False
        if self.failure is not None:
            logger.info("inspections are filed again")
            self.failure = None
            self.wake()
        # First: who waited for an inspection finds it in all that is drawn from it, such as drift.
        for callback in self._callbacks if rows else ():
            try:
                callback(rows)
            except Exception:
                logger.exception("%r failed on inspections that were filed", callback)
        self.filed = self._journal.dropped

    def _file(self, records: Sequence[JournalRecord]) -> list[dict[str, Any]]:
        """File records; the rows of those that were not filed before."""
        with self._database.read() as connection:
            ids = [record.row["id"] for record in records]
            known = set(connection.scalars(select(inspections.c.id).where(inspections.c.id.in_(ids))))
        # What is known was filed by a process that was killed before it could say so. Its files may have been
        # deleted since, by retention, and must not come back.
        new = [record for record in records if record.row["id"] not in known]
        rows = [record.row for record in new]
        for row, picture, score_map in new:
            self._pictures.store(row["image_sha256"], picture, row["id"], score_map)
        try:
            if rows:
                with self._database.write() as connection:
                    connection.execute(insert(inspections), rows)
                    append(connection, [inspection_event(row) for row in rows])
        except (DataError, IntegrityError):
            if len(records) > 1:
                return [row for record in records for row in self._file([record])]
            kept = self._journal.set_aside(records[0])
            logger.exception("the database refuses an inspection; kept as %s", kept)
            return []
        return rows
