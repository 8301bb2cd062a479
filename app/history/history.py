"""The history of inspections: what the service promises to keep, and where it is kept."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from filelock import FileLock, Timeout

from app.database.engine import Database, DatabaseUnavailable
from app.errors.problems import Problem
from app.history import identity, queries
from app.history.drawing import Drawer
from app.history.inspection_files import InspectionFiles
from app.history.journal import Journal, JournalFull
from app.history.journal_record import HistoryEntry
from app.history.recent_answers import RecentAnswers
from app.history.writer import HistoryWriter, Rows
from app.scheduling.concurrency_limit import ConcurrencyLimit
from app.settings import Settings

logger = logging.getLogger("flowgauge.history")

T = TypeVar("T")

# Seconds that closing takes at most to file what waits. The rest stays in the journal for the next start.
_CLOSE_SECONDS: Final = 10.0
_WAIT_SECONDS: Final = 10.0  # that a request waits for an inspection to be filed
_FINDERS: Final = 4  # idempotency keys that are looked up at a time
MAX_ARCHIVES: Final = 4  # that are sent at a time
MAX_EXPORTS: Final = 4  # likewise, a page of rows each


def folder_lock(folder: Path) -> FileLock:
    """The lock that whoever writes to a history's folder holds."""
    # Taken in one thread and given back in another.
    return FileLock(folder / "lock", thread_local=False)


class HistoryError(RuntimeError):
    """The history cannot be opened; the message says why and what to do."""


class History:
    """Inspections in a database, their pictures and maps in a folder, and a journal in front of both.

    `record` returns when the journal has an inspection; a thread files it a moment later. `database` is for
    reading at any time; rows of inspections and files are deleted through `in_writer` alone. `identity`
    is that of the database, known from `open` on.

    Raises:
        DatabaseError: the URL is of no database that can be used.
    """

    def __init__(self, settings: Settings) -> None:
        self.folder = settings.history.absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.database = Database(settings.database_url)
        self.pictures = InspectionFiles(self.folder)
        self.drawer = Drawer(self.pictures)
        # Who sends an archive of pictures holds a place, and one of the pictures in memory.
        self.archives = ConcurrencyLimit(MAX_ARCHIVES, "archives are being sent")
        self.exports = ConcurrencyLimit(MAX_EXPORTS, "exports are being sent")
        self._journal_bytes = settings.journal_bytes
        # Where the database is gone, each of these waits for a timeout; what else needs a thread must not.
        self._finders = ThreadPoolExecutor(_FINDERS, "idempotency")
        self._lock = folder_lock(self.folder)
        self._callbacks: list[Callable[[Rows], None]] = []

    async def open(self) -> None:
        """Bring the tables to this version, and begin to file what an earlier process has left.

        Raises:
            HistoryError: another server has the folder, or the disk refuses.
            DatabaseError: the database does not answer, or another version of FlowGauge has made it.
        """
        await asyncio.to_thread(self._open)

    async def close(self) -> None:
        """File what waits, as far as a few seconds suffice, and let go of everything."""
        await asyncio.to_thread(self._close)

    def require_room(self, picture_bytes: int) -> None:
        """Refuse early what could not be kept.

        Raises:
            Problem: history-unavailable.
        """
        try:
            self._journal.require_room(picture_bytes)
        except JournalFull as error:
            raise Problem(
                "history-unavailable",
                f"The history takes no more: {error}. Nothing was inspected; store=false inspects without "
                "keeping.",
            ) from error

    async def record(self, entry: HistoryEntry) -> None:
        """Keep an inspection; when this returns, a crash of the process loses nothing of it.

        One whose caller is cancelled meanwhile may be kept all the same.

        Raises:
            Problem: history-unavailable; it is not kept.
        """
        await asyncio.wrap_future(self._appending.submit(self._append, entry))

    async def settled(self) -> None:
        """Wait until all that was answered so far is in the database.

        Raises:
            Problem: history-unavailable, if it cannot be filed at present or that takes too long.
        """
        # One whose caller has left may be on its way into the journal.
        appended = await asyncio.wrap_future(self._appending.submit(lambda: self._journal.appended))
        await self._filed(appended)

    async def find_idempotent(self, key_id: str | None, key: str) -> queries.EarlierAnswer | None:
        """The inspection that a key's idempotency key has led to, or None.

        While the database is away, as far as it is remembered: a line rather has an image inspected twice
        than not at all.

        Raises:
            Problem: history-unavailable, if it may not be filed yet.
        """
        # In the thread that appends: one whose caller has left may be on its way into the journal.
        recent = await asyncio.wrap_future(self._appending.submit(self._recent.find, key_id, key))
        if recent is not None or self._recorder.database_is_away:
            return recent

        def find() -> queries.EarlierAnswer | None:
            if self._recorder.database_is_away:  # found while this one waited for a thread
                return None
            try:
                with self.database.read() as connection:
                    return queries.find_idempotent(connection, key_id, key)
            except DatabaseUnavailable as error:
                self._recorder.database_is_away = True
                logger.warning("idempotency keys are looked up in memory: %s", error)
                return None

        try:
            await self._filed(self._left_over)
        except Problem:
            if self._recorder.database_is_away:
                return None
            raise
        return await asyncio.get_running_loop().run_in_executor(self._finders, find)

    def in_writer(self, task: Callable[[], T]) -> Future[T]:
        """Call a function in the thread that files, so that nothing is filed or deleted meanwhile.

        Raises:
            RuntimeError: the history is not open.
        """
        return self._recorder.run(task)

    def on_filed(self, callback: Callable[[Rows], None]) -> None:
        """Call a function with rows just filed, in the writer's thread, before who waits for them goes on."""
        self._callbacks.append(callback)

    @property
    def backlog(self) -> int:
        """Bytes that wait to be filed."""
        return self._journal.backlog

    def accepts(self, picture_bytes: int) -> bool:
        """Whether a picture of so many bytes would be kept, and the last one was not refused by the disk."""
        try:
            self._journal.require_room(picture_bytes)
        except JournalFull:
            return False
        return not self._journal.refused

    @property
    def failure(self) -> str | None:
        """Why nothing can be filed at present, for the log and for metrics; None while all is well."""
        return self._recorder.failure

    def _open(self) -> None:
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise HistoryError(
                f"another server uses the history {self.folder}; stop it, or give this one a folder and a "
                "database of its own with FLOWGAUGE_HISTORY and FLOWGAUGE_DATABASE"
            ) from error
        try:
            self.database.upgrade()
            self.identity = identity.ensure_identity(self.database)
            self.pictures.open()
            self._journal = Journal(self.folder / "journal", self._journal_bytes)
        except BaseException as error:
            self._let_go()
            if isinstance(error, OSError):
                raise HistoryError(f"the history {self.folder} cannot be used: {error}") from error
            raise
        if self._journal.backlog:
            logger.info("filing %d bytes that an earlier process has left", self._journal.backlog)
        self._left_over = self._journal.appended
        self._recorder = HistoryWriter(self.database, self.pictures, self._journal, self._callbacks)
        self._recent = RecentAnswers()
        # One thread: what arrives is in the journal in the order in which it arrives.
        self._appending = ThreadPoolExecutor(1, "journal")
        self._recorder.wake()

    def _append(self, entry: HistoryEntry) -> None:
        try:
            self._journal.append(entry.record())
        except JournalFull as error:
            logger.warning("an inspection could not be kept: %s", error, exc_info=error.__cause__)
            raise Problem(
                "history-unavailable",
                f"The history takes no more: {error}. The image was inspected and is not kept, so it gets no "
                "answer; store=false inspects without keeping.",
            ) from error
        self._recent.add(entry.row)
        self._recorder.wake()

    async def _filed(self, position: int) -> None:
        """Wait until all records of the journal up to a position are in the database."""
        if position <= self._recorder.filed:
            return
        filing = self._recorder.run(partial(self._recorder.file_until, position))
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                done = await asyncio.wrap_future(filing)
        except TimeoutError:
            done = False
        if not done:
            raise Problem("history-unavailable", "The inspection is kept and not filed yet; ask again later.")

    def _close(self) -> None:
        self.drawer.close()
        self._appending.shutdown()
        self._recorder.close(_CLOSE_SECONDS)
        self._journal.close()
        if self._journal.backlog:
            logger.warning("%d bytes stay in the journal for the next start", self._journal.backlog)
        self._let_go()

    def _let_go(self) -> None:
        self._finders.shutdown(wait=False)
        self.database.close()
        self._lock.release()
