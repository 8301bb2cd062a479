"""The connection to the database: SQLite in WAL mode, or PostgreSQL, by URL."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.exc import DatabaseError as AnyDatabaseError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry

from app.database.tables import REVISION

if TYPE_CHECKING:
    import psycopg

_MIGRATIONS = Path(__file__).parent / "migrations"
# A writer of SQLite waits for the one before it; longer than this is a fault.
_BUSY_SECONDS = 30
# Threads that answer requests (anyio's limiter has 40), and the writer.
_CONNECTIONS = 48
# For a server that is gone without a word: its clients would wait for a quarter of an hour.
_NETWORK = {"connect_timeout": "5", "tcp_user_timeout": "20000"}
# What the database's encoding lacks, the server then refuses by itself, as it does other values.
_CLIENT = {"client_encoding": "UTF8"}
# States of PostgreSQL that pass.
_PASSING = {
    "25006": "the database takes no writes at present, as a standby",
    "25P03": "the database has ended a connection that was idle for too long",
    "25P04": "the database has ended a transaction that took too long",
}

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_FORBIDDEN = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)

_UNREADABLE = (
    "the database URL (FLOWGAUGE_DATABASE) cannot be read; it looks like sqlite:////DIR/history.sqlite or "
    "postgresql://USER:PASSWORD@HOST:5432/NAME, where @ : / ? and % of a user or a password must be "
    "percent-encoded: %40 %3A %2F %3F %25"
)


class DatabaseError(ValueError):
    """The database cannot be used as it was asked for."""


class DatabaseUnavailable(DatabaseError):  # noqa: N818  (a state, which may pass)
    """The database does not answer, is full, or was locked for too long; trying again later can help."""

    @property
    def at_start(self) -> str:
        """What to say to who starts a server."""
        return (
            "the database of the history does not answer; is it running, and FLOWGAUGE_DATABASE right? "
            f"({self.__cause__})"
        )


def read_url(url: str) -> URL:
    """Read a database's URL.

    Raises:
        DatabaseError: it is none, or of another kind of database; no part of a password is shown.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # ValueError: a port that is no number, and is quoted
        raise DatabaseError(_UNREADABLE) from None
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in ("sqlite", "postgresql+psycopg"):
        raise DatabaseError(f"the database must be SQLite or PostgreSQL; got {parsed.drivername!r}")
    # What follows an @ of a password that is not encoded is taken for the host or the name, which are shown.
    if parsed.drivername != "sqlite" and "@" in f"{parsed.host}{parsed.database}":
        raise DatabaseError(_UNREADABLE)
    return parsed


def shown(url: URL) -> str:
    """A database's URL for messages and logs: of its password three asterisks, of secret options nothing.

    SQLAlchemy hides the password before the host alone, and PostgreSQL takes one as an option too.
    """
    secret = [name for name in url.query if "password" in name or "secret" in name]
    return url.difference_update_query(secret).render_as_string(hide_password=True)


class DatabaseFileUnavailable(DatabaseUnavailable):
    """The file that is the database cannot be used at present: for want of rights, say, or of room."""

    @property
    def at_start(self) -> str:
        """What to say to who starts a server."""
        return str(self)


class DatabaseDamaged(DatabaseFileUnavailable):
    """The file of the database is damaged, or none; no trying again will help, a backup will."""


class Database:
    """A database of the service. May be used from several threads at once.

    Args:
        url: `sqlite:///PATH`, or `postgresql+psycopg://USER:PASSWORD@HOST/NAME` (plain `postgresql://` too).

    Raises:
        DatabaseError: as `read_url`.
    """

    def __init__(self, url: str) -> None:
        parsed = read_url(url)
        self.is_sqlite = parsed.drivername == "sqlite"
        if self.is_sqlite and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        self.engine = _sqlite(parsed) if self.is_sqlite else _postgresql(parsed)
        self._closed = False
        # Which file it is, so that another one in its place is noticed; None before the first connection.
        self._file_id: tuple[int, int] | None = None
        event.listen(self.engine, "checkin", self._take_back)
        if self.is_sqlite:
            event.listen(self.engine, "connect", self._note_file)

    def upgrade(self) -> None:
        """Bring the tables to this version of FlowGauge, all steps or none.

        Raises:
            DatabaseError: a later version of FlowGauge has changed them already, or the database refuses.
            DatabaseUnavailable: as every use of it.
        """
        with self.write() as connection:
            if not self.is_sqlite:
                # Two servers that start at once would both create the tables.
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(4661783)")
            found = _revision(connection)
            if found == REVISION:
                return
            if found is None and not self.is_sqlite:
                self._require_utf8(connection)
            _migrate(connection)

    def _require_utf8(self, connection: Connection) -> None:
        """Refuse to begin in a database that cannot hold every text.

        Raises:
            DatabaseError: as the text says.
        """
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar()
        if encoding != "UTF8":
            raise DatabaseError(
                f"the database's encoding is {encoding}, which cannot hold every text that is sent: make it "
                "by createdb --encoding UTF8 --locale C --template template0"
            )

    def prepare(self) -> None:
        """Make the tables where there are none; those of another version stay as they are.

        For commands beside a server: one that runs must not have its tables changed under it.

        Raises:
            DatabaseError: another version of FlowGauge has made the tables.
            DatabaseUnavailable: as every use of it.
        """
        found = self.revision
        if found is None:
            self.upgrade()
        elif found != REVISION:
            raise DatabaseError(
                f"the database's tables, revision {found}, are of another version of FlowGauge: use that "
                "one, or start the server of this one, which brings them up to date"
            )

    @property
    def revision(self) -> str | None:
        """The revision of the tables, or None where there are none."""
        with self.read() as connection:
            return _revision(connection)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection whose statements all see the same state.

        Raises:
            DatabaseUnavailable: the database fails, on entering or within.
        """
        self._expect_own_file()
        level = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}
        with self._translated(), self.engine.connect() as connection:
            connection.execution_options(**level)
            with connection.begin():
                yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction: all of it happens, or nothing.

        Raises:
            DatabaseUnavailable: the database fails, on entering, within, or when it is to commit; or the file
                is no longer the one at its path, and what was written is lost with it.
        """
        self._expect_own_file()
        with self._translated(), self.engine.connect() as connection:
            connection.execution_options(flowgauge_write=True)
            with connection.begin():
                yield connection
        self._expect_own_file()

    def close(self) -> None:
        """Give all connections back; one that a thread still uses, as soon as it has done."""
        self._closed = True
        self.engine.dispose()

    def _expect_own_file(self) -> None:
        """Refuse to go on where SQLite's file was removed or replaced since it was opened.

        SQLite would go on reading and writing the old file, which nobody ever finds again.
        """
        if self._file_id is not None and self._file_id != _file_id(self.engine.url):
            raise DatabaseFileUnavailable(
                f"the database {self.engine.url.database} was removed or replaced while it was in use: put "
                "it back, or restart the server to go on with what is there now; what was answered since "
                "waits in the journal until then"
            )

    def _note_file(self, *_: object) -> None:
        if self._file_id is None:
            self._file_id = _file_id(self.engine.url)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (OperationalError, InterfaceError, PoolTimeout) as error:
            fault = getattr(error, "orig", None)
            if isinstance(fault, sqlite3.OperationalError):
                raise DatabaseFileUnavailable(self._why(fault)) from error
            raise DatabaseUnavailable("the database does not answer, or takes no more") from error
        except AnyDatabaseError as error:
            if said := _PASSING.get(getattr(error.orig, "sqlstate", None) or ""):
                raise DatabaseUnavailable(said) from error
            if _code(error.orig) not in _DAMAGED:
                raise
            raise self._damaged(error.orig) from error
        except UnicodeDecodeError as error:  # of what SQLite says of a name that is no text
            if not self.is_sqlite:
                raise
            raise self._damaged(error) from error

    def _damaged(self, reason: object) -> DatabaseDamaged:
        return DatabaseDamaged(
            f"{self.engine.url.database} is damaged ({reason}), which no start will mend. Move it and the "
            "files beside it whose names begin like its own away, and bring the newest snapshot back into a "
            "new folder with `flowgauge backup restore`; what was answered since waits in the old folder's "
            "journal alone, and docs/operating.md says how to file it"
        )

    def _why(self, fault: sqlite3.OperationalError) -> str:
        """What SQLite says of its file, in a sentence."""
        file = self.engine.url.database
        if _code(fault) not in _FORBIDDEN:
            return f"the database {file} does not answer, or takes no more ({fault})"
        return (
            f"the database {file} cannot be read and written by this user ({fault}): the file, those beside "
            "it whose names begin like its own, and its folder must be the user's who runs the server"
        )

    def _take_back(self, connection: object, record: ConnectionPoolEntry) -> None:
        """The pool that was disposed of would keep it open for nobody."""
        if self._closed and connection is not None:
            record.invalidate()


def _file_id(url: URL) -> tuple[int, int] | None:
    """Device and inode of a SQLite file, None where there is none."""
    try:
        found = Path(url.database or "").stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _code(fault: BaseException | None) -> int:
    """SQLite's code of an error, 0 without: the lowest byte, as the rest tells details, of an index say."""
    return (getattr(fault, "sqlite_errorcode", None) or 0) & 0xFF


def _revision(connection: Connection) -> str | None:
    """Where Alembic notes which of its steps were taken."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _migrate(connection: Connection) -> None:
    """Take the steps that are missing, in the transaction of a connection.

    Raises:
        DatabaseError: as `Database.upgrade`.
    """
    # Here and not above: a start has nothing to migrate but once, and would wait for the import each time.
    import alembic.command
    import alembic.config

    config = alembic.config.Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        alembic.command.upgrade(config, "head")
    except alembic.util.CommandError as error:
        raise DatabaseError(
            "the database was made by a later version of FlowGauge; run that version, or restore a backup"
        ) from error
    except ProgrammingError as error:
        raise DatabaseError(f"the database's tables cannot be made: {error.orig}") from error


def _postgresql(url: URL) -> Engine:
    arguments = {name: value for name, value in (_NETWORK | _CLIENT).items() if name not in url.query}
    engine = create_engine(
        url,
        connect_args=arguments,
        pool_pre_ping=True,
        pool_size=8,
        max_overflow=_CONNECTIONS - 8,
        pool_timeout=10,
    )
    if "lock_timeout" not in str(url.query.get("options", "")):
        event.listen(engine, "connect", _wait_no_longer)
    return engine


def _wait_no_longer(connection: "psycopg.Connection[Any]", _: object) -> None:
    """Let PostgreSQL give up waiting for a lock, as SQLite does, or nobody would know what it waits for."""
    # Not as an option of the connection, which some of what stands between does not know.
    connection.execute(f"SET lock_timeout = '{_BUSY_SECONDS}s'")
    connection.commit()


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Of a new file, two connections may ask for it at once: SQLite lets one fail without waiting."""
    patience = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > patience:
                raise
            time.sleep(0.01)
        else:
            return


def _sqlite(url: URL) -> Engine:
    engine = create_engine(
        url,
        connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False},
        pool_size=_CONNECTIONS,
        max_overflow=0,
        pool_timeout=10,
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _: Any) -> None:
        # The driver would begin transactions on its own terms, and never for a SELECT.
        connection.isolation_level = None
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
