"""The history of inspections: journal, database and files behind one interface."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from filelock import FileLock, Timeout

from app.database import clock
from app.database.engine import Database, DatabaseUnavailable
from app.errors.problems import Problem
from app.history import identity, queries
from app.history.drawing import Drawer
from app.history.idempotency_claims import IdempotencyClaims, read_server_id
from app.history.inspection_files import InspectionFiles
from app.history.journal import Journal, JournalFull
from app.history.journal_record import HistoryEntry
from app.history.recent_answers import RecentAnswers
from app.history.writer import HistoryWriter, Rows
from app.scheduling.concurrency_limit import ConcurrencyLimit
from app.settings import Settings
from app.storage.store import StoreUnavailable
from app.storage.urls import StoreError, open_store

logger = logging.getLogger("flowgauge.history")

T = TypeVar("T")

# Closing writes waiting records for at most this long. The rest stays in the journal for the next start.
_CLOSE_SECONDS: Final = 10.0
_WAIT_SECONDS: Final = 10.0  # a request waits this long for an inspection to reach the database
# An answer waits this long for it, if other servers could be asked for the inspection next.
_SHARED_WAIT_SECONDS: Final = 1.0
_FINDERS: Final = 4  # parallel lookups of idempotency keys
MAX_ARCHIVES: Final = 4  # sent in parallel
MAX_EXPORTS: Final = 4  # sent in parallel, a page of rows each


def folder_lock(folder: Path) -> FileLock:
    """Return the lock for writing to a history's folder."""
    # One thread acquires the lock, another one releases it.
    return FileLock(folder / "lock", thread_local=False)


class HistoryError(RuntimeError):
    """The history cannot be opened; the message says why and what to do."""


class History:
    """Inspections in a database, images and maps in a folder, and a journal in front of both.

    `record` returns as soon as the journal has an inspection; a thread writes it to the database a moment
    later. With a store, `record` waits a moment for that, so that other servers find what was answered. Read
    `database` at any time, but delete rows and files only through `run_in_writer`. `identity` is that of the
    database, known after `open`.

    Raises:
        DatabaseError: the database URL is not usable.
    """

    def __init__(self, settings: Settings) -> None:
        self.folder = settings.history.absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.database = Database(settings.database_url)
        self._store = open_store(settings.store, sync=False) if settings.store else None
        self.files = InspectionFiles(self.folder, self._store)
        self.drawer = Drawer(self.files)
        # Sending an archive takes a place and keeps one image in memory.
        self.archives = ConcurrencyLimit(MAX_ARCHIVES, "archives are being sent")
        self.exports = ConcurrencyLimit(MAX_EXPORTS, "exports are being sent")
        self._journal_bytes = settings.journal_bytes
        # If the database is gone, each lookup waits for a timeout; these must not block other threads.
        self._finders = ThreadPoolExecutor(_FINDERS, "idempotency")
        self._lock = folder_lock(self.folder)
        self._callbacks: list[Callable[[Rows], None]] = []

    async def open(self) -> None:
        """Upgrade the tables, and start to write what an earlier process left in the journal.

        Raises:
            HistoryError: another server uses the folder, or the disk fails.
            DatabaseError: the database does not answer, or belongs to another version of FlowGauge.
        """
        await asyncio.to_thread(self._open)

    async def close(self) -> None:
        """Write waiting records for a few seconds at most, and release everything."""
        await asyncio.to_thread(self._close)

    def require_room(self, image_bytes: int) -> None:
        """Raise the problem history-unavailable if an inspection could not be kept."""
        try:
            self._journal.require_room(image_bytes)
        except JournalFull as error:
            raise Problem(
                "history-unavailable",
                f"The history takes no more: {error}. Nothing was inspected; store=false inspects without "
                "keeping.",
            ) from error

    async def record(self, entry: HistoryEntry) -> None:
        """Keep an inspection; after the return, a crash of the process cannot lose it.

        If the caller is cancelled meanwhile, the inspection may still be kept.

        Raises:
            Problem: history-unavailable; the inspection is not kept.
        """
        position = await asyncio.wrap_future(self._appending.submit(self._append, entry))
        if self._store is not None and self._writer.failure is None:
            with suppress(Problem):  # it is in the journal
                await self._filed(position, _SHARED_WAIT_SECONDS)

    async def wait_until_filed(self) -> None:
        """Wait until all inspections answered so far are in the database.

        Raises:
            Problem: history-unavailable, if they cannot be written now or it takes too long.
        """
        # An inspection whose caller was cancelled may be on its way into the journal.
        appended = await asyncio.wrap_future(self._appending.submit(lambda: self._journal.appended))
        await self._filed(appended)

    async def find_or_claim(self, key_id: str | None, key: str, token: str) -> queries.EarlierAnswer | None:
        """Find the inspection of a caller's idempotency key. Without one, claim the key and return None.

        While the database is away, only recent answers in memory count: inspecting an image twice is better
        than not at all.

        Args:
            token: of the request, from `clock.new_id`.

        Raises:
            Problem: history-unavailable, if the inspection may still wait in the journal.
            KeyIsClaimed: the inspection is another server's, and not filed yet.
        """
        # In the thread that appends: an inspection whose caller was cancelled may be on its way there.
        recent = await asyncio.wrap_future(self._appending.submit(self._recent.find, key_id, key))
        if recent is not None or self._writer.database_is_away:
            return recent
        try:
            await self._filed(self._left_over)
        except Problem:
            if self._writer.database_is_away:
                return None
            raise
        job = self._finders.submit(self._find_or_claim, key_id, key, token)
        try:
            return await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            job.add_done_callback(lambda _: self.release(key_id, key, token))
            raise

    def release(self, key_id: str | None, key: str, token: str) -> None:
        """End the claim of a failed request soon, unless its inspection is kept all the same."""

        def release_unkept() -> None:
            if self._claims is not None and self._recent.find(key_id, key) is None:
                self._finders.submit(self._claims.release, key_id, key, token)

        with suppress(RuntimeError):  # closed meanwhile
            self._appending.submit(release_unkept)

    def run_in_writer(self, task: Callable[[], T]) -> Future[T]:
        """Call a function in the writer's thread, so that nothing is written or deleted meanwhile.

        Raises:
            RuntimeError: the history is not open.
        """
        return self._writer.run(task)

    def on_filed(self, callback: Callable[[Rows], None]) -> None:
        """Register a callback for new rows; it runs in the writer's thread, before waiters continue."""
        self._callbacks.append(callback)

    @property
    def backlog(self) -> int:
        """Bytes in the journal that are not in the database yet."""
        return self._journal.backlog

    def accepts(self, image_bytes: int) -> bool:
        """Tell if an image of this size would be kept, and the disk took the last one."""
        try:
            self._journal.require_room(image_bytes)
        except JournalFull:
            return False
        return not self._journal.refused

    @property
    def failure(self) -> str | None:
        """Reason why inspections cannot be filed now, for log and metrics; None if they can."""
        return self._writer.failure

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
            self.files.open()
            identity.require_store(self.database, self._store, self.identity)
            self._journal = Journal(self.folder / "journal", self._journal_bytes)
            self._claims: IdempotencyClaims | None = None
            if not self.database.is_sqlite:
                self._claims = IdempotencyClaims(self.database, read_server_id(self.folder))
        except BaseException as error:
            self._release()
            if isinstance(error, StoreError | StoreUnavailable):
                raise HistoryError(f"FLOWGAUGE_STORE cannot be used: {error}") from error
            if isinstance(error, OSError):
                raise HistoryError(f"the history {self.folder} cannot be used: {error}") from error
            raise
        if self._journal.backlog:
            logger.info("filing %d bytes that an earlier process has left", self._journal.backlog)
        self._left_over = self._journal.appended
        self._writer = HistoryWriter(self.database, self.files, self._journal, self._callbacks)
        self._recent = RecentAnswers()
        # One thread keeps the order of arrival in the journal.
        self._appending = ThreadPoolExecutor(1, "journal")
        if self._claims is None:
            self._writer.wake()
        else:
            self._writer.on_waiting = self._claims.renew
            self._writer.run(partial(self._file_left_over, self._claims, clock.new_id()))

    def _file_left_over(self, claims: IdempotencyClaims, token: str) -> None:
        """File what an earlier process has left, and end its claims; in the writer's thread."""
        if self._writer.file_until(self._left_over):
            claims.end_earlier(token)

    def _find_or_claim(self, key_id: str | None, key: str, token: str) -> queries.EarlierAnswer | None:
        if self._writer.database_is_away:  # noticed while this lookup waited for a thread
            return None
        try:
            if self._claims is not None:
                return self._claims.find_or_claim(key_id, key, token)
            with self.database.read() as connection:
                return queries.find_idempotent(connection, key_id, key)
        except DatabaseUnavailable as error:
            self._writer.database_is_away = True
            logger.warning("idempotency keys are looked up in memory: %s", error)
            return None

    def _append(self, entry: HistoryEntry) -> int:
        """Append an inspection to the journal; return the position after it."""
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
        self._writer.wake()
        return self._journal.appended

    async def _filed(self, position: int, seconds: float = _WAIT_SECONDS) -> None:
        """Wait until all journal records up to a position are in the database."""
        if position <= self._writer.filed:
            return
        filing = self._writer.run(partial(self._writer.file_until, position))
        try:
            async with asyncio.timeout(seconds):
                done = await asyncio.wrap_future(filing)
        except TimeoutError:
            done = False
        if not done:
            raise Problem("history-unavailable", "The inspection is kept and not filed yet; ask again later.")

    def _close(self) -> None:
        self.drawer.close()
        self._appending.shutdown()
        self._writer.close(_CLOSE_SECONDS)
        self._journal.close()
        if self._journal.backlog:
            logger.warning("%d bytes stay in the journal for the next start", self._journal.backlog)
        self._release()

    def _release(self) -> None:
        self._finders.shutdown(wait=False)
        self.database.close()
        self._lock.release()
