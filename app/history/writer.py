"""The history's writer: the one thread that stores and deletes inspections."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, TypeVar

from sqlalchemy import insert, select
from sqlalchemy.exc import DataError, IntegrityError

from app.database import locks
from app.database.engine import Database, DatabaseBusy, DatabaseUnavailable
from app.database.tables import inspections
from app.events.log import append
from app.events.new_events import inspection_event
from app.history.idempotency_claims import end_claims
from app.history.inspection_files import InspectionFiles, image_name, map_name
from app.history.journal import Journal
from app.history.journal_record import JournalRecord

logger = logging.getLogger("flowgauge.history")

T = TypeVar("T")
Rows = Sequence[dict[str, Any]]

_MIN_DELAY, _MAX_DELAY = 0.2, 10.0  # seconds between attempts
_WAITING_SECONDS: Final = 30.0


class HistoryWriter:
    """Moves the journal's records into the database and the files of the history.

    The order is files, rows in one transaction, then removal from the journal. So if the process is killed at
    any point, the next process completes the work, and each inspection is stored once with its files.
    Failures of disk or database are retried at growing intervals. A record that the database refuses is set
    aside, so that it does not block the others.

    Attributes:
        filed: bytes of the journal's records that are stored and announced to the callbacks.
        failure: reason why inspections cannot be stored now; None if they can.
        database_is_away: true if the database did not answer since the last success.
        on_waiting: called in the thread, twice a minute while records wait and the database answers.
    """

    def __init__(
        self,
        database: Database,
        files: InspectionFiles,
        journal: Journal,
        callbacks: Sequence[Callable[[Rows], None]],
    ) -> None:
        self._database = database
        self._files = files
        self._journal = journal
        self._callbacks = callbacks
        self.filed = 0
        self.failure: str | None = None
        self.database_is_away = False
        self.on_waiting: Callable[[], None] = lambda: None
        self._next_waiting = 0.0  # of the monotonic clock
        self._thread = ThreadPoolExecutor(1, "history")
        self._delay = 0.0
        self._retry: threading.Timer | None = None

    def wake(self) -> None:
        """Store waiting records batch by batch; other tasks of the thread run in between."""
        self._thread.submit(self._file_next)

    def run(self, task: Callable[[], T]) -> "Future[T]":
        """Call a function in the thread, between two batches.

        Raises:
            RuntimeError: the writer is closed.
        """
        return self._thread.submit(task)

    def file_until(self, position: int) -> bool:
        """Store all records up to a position of the journal; False on failure. Call it in the thread."""
        while self.filed < position and self._attempt():
            pass
        return self.filed >= position

    def close(self, seconds: float) -> None:
        """Store waiting records for at most this long, and end the thread; the rest stays."""
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
        """Store a batch; on failure return False and retry later."""
        try:
            self._file_batch()
        except Exception as error:
            self._delay = min(max(2 * self._delay, _MIN_DELAY), _MAX_DELAY)
            # Log the traceback once, not every ten seconds.
            logger.exception(
                "inspections cannot be stored, next attempt in %.1f s",
                self._delay,
                exc_info=not self.failure,
            )
            is_busy = isinstance(error, DatabaseBusy)
            self.database_is_away = isinstance(error, DatabaseUnavailable) and not is_busy
            self.failure = f"{type(error).__name__}: {error}"
            self._announce_waiting()
            if self._retry is None:
                self._retry = threading.Timer(self._delay, self._try_again)
                self._retry.daemon = True
                self._retry.start()
            return False
        self._delay = 0.0
        self._announce_waiting()
        return True

    def _announce_waiting(self) -> None:
        now = time.monotonic()
        if self._journal.backlog and not self.database_is_away and now >= self._next_waiting:
            with suppress(DatabaseUnavailable):
                self.on_waiting()
                self._next_waiting = now + _WAITING_SECONDS

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
            logger.info("inspections are stored again")
            self.failure = None
            self.wake()
        # Before `filed` changes: waiters then find the inspection in everything derived from it, such as
        # drift.
        for callback in self._callbacks if rows else ():
            try:
                callback(rows)
            except Exception:
                logger.exception("%r failed on inspections that were stored", callback)
        self.filed = self._journal.dropped

    def _file(self, records: Sequence[JournalRecord]) -> list[dict[str, Any]]:
        """Store records; return the rows of the new ones."""
        with self._database.read() as connection:
            ids = [record.row["id"] for record in records]
            known = set(connection.scalars(select(inspections.c.id).where(inspections.c.id.in_(ids))))
        # A killed process may have stored a record without removing it from the journal. Retention may have
        # deleted its files since, and they must not come back.
        new = [record for record in records if record.row["id"] not in known]
        rows = [record.row for record in new]
        files = {image_name(row["image_sha256"]): image for row, image, _ in new}
        files |= {map_name(row["id"]): score_map for row, _, score_map in new}
        try:
            if rows:
                if self._database.is_sqlite:  # other writers need not wait for the files
                    self._files.store_all(files)
                with self._database.write() as connection:
                    if not self._database.is_sqlite:
                        # Until the commit no server deletes an image that these inspections share with
                        # others. If the lock is lost, so are the rows.
                        locks.take(connection, locks.FILES, shared=True)
                        self._files.store_all(files)
                    connection.execute(insert(inspections), rows)
                    end_claims(connection, rows)
                    append(connection, [inspection_event(row) for row in rows])
        except (DataError, IntegrityError):
            if len(records) > 1:
                return [row for record in records for row in self._file([record])]
            kept = self._journal.set_aside(records[0])
            logger.exception("the database refuses an inspection; it is kept as %s", kept)
            return []
        return rows
