"""SQLAlchemy engines for PostgreSQL and for SQLite in WAL mode."""

import sqlite3
import time
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL

# Longest wait for a lock of another connection.
_BUSY_SECONDS: Final = 30
# Threads that answer requests (anyio's limiter has 40), and the writer.
_MAX_CONNECTIONS: Final = 48


def create_postgresql(url: URL) -> Engine:
    arguments = {
        # A server that is gone without a word would be waited for a quarter of an hour.
        "connect_timeout": "5",
        "tcp_user_timeout": "20000",
        "client_encoding": "UTF8",  # or texts of a database of another encoding would come as bytes
        "options": f"-c lock_timeout={_BUSY_SECONDS}s",
    }
    return create_engine(
        url,
        connect_args={name: value for name, value in arguments.items() if name not in url.query},
        pool_pre_ping=True,
        pool_size=8,
        max_overflow=_MAX_CONNECTIONS - 8,
        pool_timeout=10,
    )


def create_sqlite(url: URL) -> Engine:
    engine = create_engine(
        url,
        # The driver would begin transactions on its own terms, and never for a SELECT.
        connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False, "isolation_level": None},
        pool_size=_MAX_CONNECTIONS,
        max_overflow=0,
        pool_timeout=10,
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _: Any) -> None:
        _use_write_ahead_log(connection)
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A writer takes its lock at once: one that has read first and then finds another writer ahead of it
        # fails without waiting.
        write = connection.get_execution_options().get("flowgauge_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Set WAL mode; SQLite itself does not wait for another connection that sets it for a new file."""
    end = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)
        else:
            return
