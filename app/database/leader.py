"""The choice of one server, by a lock of PostgreSQL, for work that must run once."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from typing import TYPE_CHECKING, Final, TypeVar

from app.database import locks
from app.database.engine import Database

if TYPE_CHECKING:
    import psycopg

logger = logging.getLogger("flowgauge.leader")

T = TypeVar("T")

CHECK_SECONDS: Final = 1.0
# A server that is cut off from the database must stop its work before the database gives the lock to another:
# it notices within CHECK_SECONDS and this time, and the database after 6 s without an answer.
MAX_SILENCE_SECONDS: Final = 3.0
_DATABASE_TIMEOUTS: Final = (
    "SET tcp_keepalives_idle = 3; SET tcp_keepalives_interval = 1; SET tcp_keepalives_count = 3"
)


class Leader:
    """Runs work in the one server that holds a lock; if it fails, another takes over in seconds.

    On SQLite there is one server, which always leads.

    Args:
        work: the work; it starts on entering, and stops on leaving.

    Attributes:
        leads: True while the work runs here.
    """

    def __init__(self, database: Database, work: Callable[[], AbstractAsyncContextManager[None]]) -> None:
        self._database = database
        self._work = work
        self.leads = False
        self._running = AsyncExitStack()
        self._task: asyncio.Task[None] | None = None
        # A connection and its thread of its own, so that nothing else delays a check.
        self._thread = ThreadPoolExecutor(1, "leader")
        self._connection: psycopg.Connection | None = None
        self._holds_lock = False

    async def open(self) -> None:
        """Start the work, unless another server leads.

        Raises:
            Exception: the work cannot start.
        """
        if self._database.is_sqlite:
            await self._start()
            return
        if await self._holds():
            await self._start()
        self._task = asyncio.create_task(self._keep_checking())

    async def close(self) -> None:
        """Stop the work, and let another server lead."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._stop()
        if not self._database.is_sqlite:
            self._break_off()
            await self._in_thread(self._disconnect)
        self._thread.shutdown()

    async def _keep_checking(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            holds_lock = await self._holds()
            try:
                if holds_lock and not self.leads:
                    await self._start()
                elif self.leads and not holds_lock:
                    logger.warning("another server may lead now: the work that must run once stops here")
                    await self._stop()
            except Exception:  # whatever it is, this server or another must lead again
                logger.exception("cannot lead; trying again")
                await self._in_thread(self._disconnect)

    async def _start(self) -> None:
        await self._running.enter_async_context(self._work())
        self.leads = True
        if not self._database.is_sqlite:
            logger.info("this server leads: retention, sinks, drift and jobs run here")

    async def _stop(self) -> None:
        self.leads = False
        await self._running.aclose()

    async def _holds(self) -> bool:
        """Tell if this server surely holds the lock; take it if it is free."""
        try:
            async with asyncio.timeout(MAX_SILENCE_SECONDS):
                return await self._in_thread(self._check)
        except TimeoutError:
            self._break_off()
            return False

    def _break_off(self) -> None:
        """End the connection under the thread that waits for it."""
        import psycopg

        connection = self._connection
        with suppress(OSError, psycopg.Error):  # it has just ended
            if connection is not None:
                with socket.socket(fileno=os.dup(connection.fileno())) as own:
                    own.shutdown(socket.SHUT_RDWR)

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    def _check(self) -> bool:
        import psycopg

        try:
            if self._connection is None:
                self._connection = self._database.connect()
                self._connection.execute(_DATABASE_TIMEOUTS)
            if self._holds_lock:
                self._connection.execute("SELECT 1")
            else:
                row = self._connection.execute("SELECT pg_try_advisory_lock(%s)", [locks.LEADER]).fetchone()
                self._holds_lock = row is not None and row[0]
        except psycopg.Error as error:
            if self._connection is not None:
                logger.warning("the connection of the leader's lock is lost: %s", error)
            self._disconnect()
        return self._holds_lock

    def _disconnect(self) -> None:
        """Release the lock."""
        self._holds_lock = False
        if self._connection is not None:
            self._connection.close()
            self._connection = None
