"""SQLAlchemy engines for PostgreSQL and for SQLite in WAL mode."""

import sqlite3
import time
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL

if TYPE_CHECKING:
    import psycopg

# Longest wait for a lock of another connection.
_BUSY_SECONDS: Final = 30
# Threads that answer requests (anyio's limiter has 40), and the writer.
_MAX_CONNECTIONS: Final = 48
_POSTGRESQL: Final = {
    # Without these, a vanished server blocks for a quarter of an hour.
    "connect_timeout": "5",
    "tcp_user_timeout": "20000",
    "client_encoding": "UTF8",  # otherwise texts of a database of another encoding arrive as bytes
    # Without the others, the locks of a vanished client hold up all servers for two hours.
    "options": f"-c lock_timeout={_BUSY_SECONDS}s -c tcp_keepalives_idle=3 -c tcp_keepalives_interval=1 "
    "-c tcp_keepalives_count=3 -c tcp_user_timeout=6000",
}


def create_postgresql(url: URL) -> Engine:
    return create_engine(
        url,
        connect_args={name: value for name, value in _POSTGRESQL.items() if name not in url.query},
        pool_pre_ping=True,
        pool_size=8,
        max_overflow=_MAX_CONNECTIONS - 8,
        pool_timeout=10,
    )


def connect_postgresql(engine: Engine) -> "psycopg.Connection":
    """Open a connection outside of the pool, in autocommit mode."""
    import psycopg

    positional, named = engine.dialect.create_connect_args(engine.url)
    return psycopg.connect(*positional, **{**_POSTGRESQL, **named}, autocommit=True)


def create_sqlite(url: URL) -> Engine:
    engine = create_engine(
        url,
        # isolation_level None: the driver would begin transactions itself, and never for a SELECT.
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
        # A writer takes its lock at once. After a read, it would fail without waiting if another writer came
        # first.
        write = connection.get_execution_options().get("flowgauge_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Set WAL mode, and retry: SQLite does not wait for another connection that sets it on a new file."""
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
