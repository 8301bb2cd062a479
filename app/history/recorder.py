"""The history's writer: one thread that files the journal's records, and all that deletes."""

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from sqlalchemy import insert, select
from sqlalchemy.exc import DataError, IntegrityError

from app.database.engine import Database, DatabaseUnavailable
from app.database.tables import inspections
from app.feed.log import append
from app.feed.new_events import inspected
from app.history.filed import FiledPosition
from app.history.journal import Journal
from app.history.pictures import Pictures
from app.history.record import Record

logger = logging.getLogger("flowgauge.history")

T = TypeVar("T")
Rows = Sequence[dict[str, Any]]

# Filed together: few enough that who waits for the first does not wait long.
_BATCH_BYTES: Final = 16 * 1024 * 1024
_BATCH_RECORDS: Final = 256
# For a batch that is under way when the time for filing is over.
_ANSWER_SECONDS: Final = 5.0
_FIRST_DELAY, _LONGEST_DELAY = 0.2, 10.0  # seconds between attempts


class _Refused(Exception):  # noqa: N818
    """The database does not take a row, and never will."""


class Recorder:
    """Brings the journal's records into the database, and their files into their places.

    Files first, then the rows in one transaction, then the journal forgets them: killed anywhere, the next
    process does the rest, and an inspection is in the database with its files, once. A disk or a database
    that fails is tried again, at longer and longer intervals; the journal keeps what waits. A record that the
    database refuses is set aside, so that it does not keep the others waiting.
    """

    def __init__(
        self, database: Database, pictures: Pictures, journal: Journal, filed: FiledPosition
    ) -> None:
        self._database = database
        self._pictures = pictures
        self._journal = journal
        self._filed = filed
        # Why nothing can be filed at present, for people; None while all is well.
        self.failure: str | None = None
        # Until something is filed; set here, or by whoever else finds that it does not answer.
        self.database_is_away = False
        self.callbacks: list[Callable[[Rows], None]] = []
        self._tasks: deque[Callable[[], None]] = deque()
        self._awake = threading.Event()
        self._stop_at: float | None = None
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)

    def start(self) -> None:
        """Begin with what an earlier process has left."""
        self._thread.start()

    def wake(self) -> None:
        """There is something to file."""
        self._awake.set()

    def run(self, task: Callable[[], T]) -> "Future[T]":
        """Call a function in the thread, between two batches; its result or error is the future's.

        Raises:
            RuntimeError: the thread does not run.
        """
        if not self._thread.is_alive():
            raise RuntimeError("the history is not open")
        future: Future[T] = Future()

        def do() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(task())
                except BaseException as error:
                    future.set_exception(error)

        self._tasks.append(do)
        self._awake.set()
        return future

    def stop(self, seconds: float) -> bool:
        """File what waits, for so long at most, and end the thread; the rest stays in the journal.

        A database that neither answers nor fails keeps nobody from the end: the thread goes with the process.

        Returns:
            Whether the thread has ended. One that has not may still write.
        """
        self._stop_at = time.monotonic() + seconds
        self._awake.set()
        self._thread.join(seconds + _ANSWER_SECONDS)
        if self._thread.is_alive():
            logger.error("the database does not answer: what was not filed waits in the journal")
            return False
        return True

    @property
    def _is_late(self) -> bool:
        """Whether there was a stop, and its time is over: the history may be another process's soon."""
        return self._stop_at is not None and time.monotonic() > self._stop_at + _ANSWER_SECONDS

    def _run(self) -> None:
        delay, next_attempt = 0.0, 0.0
        while True:
            self._awake.clear()
            while self._tasks and not self._is_late:
                self._tasks.popleft()()
            if self._stop_at is not None and (time.monotonic() > self._stop_at or self.failure):
                return
            left = next_attempt - time.monotonic()
            if left > 0:
                self._awake.wait(left)
                continue
            try:
                filed = self._file_batch()
            except Exception as error:
                delay = min(max(2 * delay, _FIRST_DELAY), _LONGEST_DELAY)
                next_attempt = time.monotonic() + delay
                # With its traceback once, not every ten seconds for a night.
                logger.exception(
                    "inspections cannot be filed, next attempt in %.1f s", delay, exc_info=not self.failure
                )
                self.database_is_away = isinstance(error, DatabaseUnavailable)
                self.failure = f"{type(error).__name__}: {error}"
                continue
            delay = 0.0
            if not filed:
                if self._stop_at is not None:
                    return
                self._awake.wait()

    def _file_batch(self) -> bool:
        """File the records that wait longest; False if none waits."""
        records = self._journal.read(_BATCH_BYTES, _BATCH_RECORDS)
        filed = self._file_some(records) if records else []
        if records or self.failure is not None:
            self.database_is_away = False
        if self.failure is not None:
            logger.info("inspections are filed again")
            self.failure = None
        # First: who waited for an inspection finds it in all that is drawn from it, such as drift.
        if filed:
            self._tell(filed)
        self._filed.reach(self._journal.dropped)  # even without a record: what is none was passed over
        return bool(records)

    def _file_some(self, records: Sequence[Record]) -> list[dict[str, Any]]:
        """File records: fewer of the first where one is refused, which is set aside when it is the first."""
        while True:
            try:
                return self._file(records)
            except _Refused as error:
                if len(records) == 1:
                    kept = self._journal.set_aside(records[0])
                    logger.exception("the database refuses an inspection; kept as %s", kept, exc_info=error)
                    return []
                records = records[: len(records) // 2]

    def _file(self, records: Sequence[Record]) -> list[dict[str, Any]]:
        """File records; the rows of those that were not filed before.

        Raises:
            _Refused: the database does not take one of them; none is filed.
        """
        rows: list[dict[str, Any]] = [json.loads(record.row) for record in records]
        with self._database.read() as connection:
            ids = [row["id"] for row in rows]
            known = set(connection.scalars(select(inspections.c.id).where(inspections.c.id.in_(ids))))
        # What is known was filed by a process that was killed before it could say so. Its files may have been
        # deleted since, by retention, and must not come back.
        new = [(row, record) for row, record in zip(rows, records, strict=True) if row["id"] not in known]
        for row, record in new:
            self._pictures.store(row["image_sha256"], record.picture, row["id"], record.score_map)
        filed = [row for row, _ in new]
        if filed:
            with self._database.write() as connection:
                try:
                    connection.execute(insert(inspections), filed)
                except (IntegrityError, DataError) as error:
                    raise _Refused from error
                append(connection, [inspected(row) for row in filed])
        self._journal.drop(records)
        return filed

    def _tell(self, rows: Rows) -> None:
        for callback in self.callbacks:
            try:
                callback(rows)
            except Exception:
                logger.exception("%r failed on inspections that were filed", callback)
