"""Access to the database, SQLite or PostgreSQL, by URL."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, InterfaceError, InternalError, OperationalError, ProgrammingError
from sqlalchemy.exc import DatabaseError as AnyDatabaseError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.database import connections, locks
from app.database import shared_tables as _shared_tables  # noqa: F401 (its tables belong to metadata)
from app.database.tables import REVISION, metadata

if TYPE_CHECKING:
    import psycopg

_MIGRATIONS = Path(__file__).parent / "migrations"
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

_UNREADABLE = (
    "the database URL (FLOWGAUGE_DATABASE) cannot be read; it must look like sqlite:////DIR/history.sqlite "
    "or postgresql://USER:PASSWORD@HOST:5432/NAME, with @ : / ? and % of a user or a password "
    "percent-encoded: %40 %3A %2F %3F %25"
)


class DatabaseError(ValueError):
    """The database cannot be used with these settings."""


class DatabaseUnavailable(DatabaseError):  # noqa: N818  (a state, which may pass)
    """The database does not answer, is full, or is locked for too long; a retry can help."""


class DatabaseBusy(DatabaseUnavailable):
    """PostgreSQL answers; another transaction holds a lock for too long."""


class DatabaseDamaged(DatabaseUnavailable):
    """The database file is damaged or is no database; only a backup helps."""


def parse_url(url: str) -> URL:
    """Parse a database URL.

    Raises:
        DatabaseError: it is invalid or of another kind of database. The message shows no part of a password.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # ValueError: the port is no number; its message quotes it
        raise DatabaseError(_UNREADABLE) from None
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in ("sqlite", "postgresql+psycopg"):
        raise DatabaseError(f"the database must be SQLite or PostgreSQL; got {parsed.drivername!r}")
    # Text after an unencoded @ in a password ends up in the host or the name, which messages show.
    if parsed.drivername != "sqlite" and "@" in f"{parsed.host}{parsed.database}":
        raise DatabaseError(_UNREADABLE)
    return parsed


def redact_url(url: URL) -> str:
    """Format a URL for messages and logs, without its password and its secret options.

    SQLAlchemy hides only the password before the host, but PostgreSQL also takes one as an option.
    """
    secret = [name for name in url.query if "password" in name or "secret" in name]
    return url.difference_update_query(secret).render_as_string(hide_password=True)


class Database:
    """A database of the service, by a URL as for `parse_url`. Safe to use from several threads."""

    def __init__(self, url: str) -> None:
        parsed = parse_url(url)
        self.is_sqlite = parsed.drivername == "sqlite"
        if self.is_sqlite and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        create = connections.create_sqlite if self.is_sqlite else connections.create_postgresql
        self.engine = create(parsed)
        # Identity of SQLite's file, to notice a replacement; None before the first connection.
        self._opened: os.stat_result | None = None
        if self.is_sqlite:
            event.listen(self.engine, "connect", self._note_file)

    def upgrade(self) -> None:
        """Migrate the tables to this version of FlowGauge in one transaction.

        Raises:
            DatabaseError: the tables are of a later or unknown version, or the encoding is not UTF-8.
        """
        with self.write() as connection:
            # Two servers that start together would both create the tables.
            locks.take(connection, locks.UPGRADE)
            revision = _read_revision(connection)
            if revision is None:
                _require_empty(connection)
            if revision != REVISION:
                _migrate(connection)

    def prepare(self) -> None:
        """Create the tables if there are none. For commands, which must not migrate a running server's.

        Raises:
            DatabaseError: as for `upgrade`; or another version of FlowGauge made the tables.
        """
        revision = self.revision
        if revision is None:
            self.upgrade()
        elif revision != REVISION:
            raise DatabaseError(
                f"the database's tables, revision {revision}, are of another version of FlowGauge: use that "
                "version, or start this version's server, which migrates them"
            )

    @property
    def revision(self) -> str | None:
        """The revision of the tables; None if there are none."""
        with self.read() as connection:
            return _read_revision(connection)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a connection whose statements all see the same snapshot.

        Raises:
            DatabaseUnavailable: the database fails, on entering or within.
        """
        self._require_own_file()
        level = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}
        with self._translated(), self.engine.connect() as connection:
            connection.execution_options(**level)
            with connection.begin():
                yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction, committed on exit and rolled back on an error.

        Raises:
            DatabaseUnavailable: the database fails, on entering, within or at the commit; or SQLite's file
                was removed or replaced.
        """
        self._require_own_file()
        with self._translated(), self.engine.connect() as connection:
            connection.execution_options(flowgauge_write=True)
            with connection.begin():
                yield connection
        self._require_own_file()

    def connect(self) -> "psycopg.Connection":
        """Open a PostgreSQL connection outside of the pool, in autocommit mode; for use over a long time."""
        return connections.connect_postgresql(self.engine)

    @contextmanager
    def locked(
        self, number: int, name: str | None = None, *, shared: bool = False, wait_ms: int | None = None
    ) -> Iterator[None]:
        """Hold a lock of `locks.take` within a block, by a transaction of its own; no-op on SQLite."""
        if self.is_sqlite:
            yield
            return
        with self.write() as connection:
            locks.take(connection, number, name, shared=shared, wait_ms=wait_ms)
            yield

    def close(self) -> None:
        """Close all connections; one in use closes when its thread returns it."""
        # A disposed pool would keep returned connections open.
        event.listen(self.engine, "checkin", lambda connection, record: connection and record.invalidate())
        self.engine.dispose()

    def _require_own_file(self) -> None:
        """Fail if SQLite's file was removed or replaced since it was opened.

        SQLite would continue to use the old file, which no longer has a name.
        """
        file = Path(self.engine.url.database or "")
        if self._opened and not (file.exists() and os.path.samestat(self._opened, file.stat())):
            raise DatabaseUnavailable(
                f"the database {file} was removed or replaced while it was in use: put it back, or restart "
                "the server to use the present file; answers since then wait in the journal"
            )

    def _note_file(self, *_: object) -> None:
        self._opened = self._opened or Path(self.engine.url.database or "").stat()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        file = self.engine.url.database
        try:
            yield
        except (OperationalError, InterfaceError, InternalError, PoolTimeout) as error:
            fault = getattr(error, "orig", error)
            reason = " ".join(str(fault).split())
            if getattr(fault, "sqlstate", None) == "55P03":
                raise DatabaseBusy(f"another transaction holds a lock for too long ({reason})") from error
            raise DatabaseUnavailable(
                f"the database {file} cannot be used ({reason}): the disk is full, another program locks it, "
                "or the server's user does not own the file, its companions (-wal, -shm) or its folder"
                if self.is_sqlite
                else "the database does not answer or accepts no more; check that it runs and that "
                f"FLOWGAUGE_DATABASE is right ({reason})"
            ) from error
        except (AnyDatabaseError, UnicodeDecodeError) as error:
            fault = getattr(error, "orig", error)
            # The lowest byte of SQLite's code is the kind of error. If a name is damaged, its message is no
            # valid text.
            damaged = (getattr(fault, "sqlite_errorcode", None) or 0) & 0xFF in _DAMAGED
            if not (damaged or (self.is_sqlite and isinstance(fault, UnicodeDecodeError))):
                raise
            raise DatabaseDamaged(
                f"{file} is damaged ({fault}); a restart does not help. Move the history folder away and "
                "restore the newest snapshot into a new folder with `flowgauge backup restore`. Later "
                "answers are only in the old folder's journal: see docs/how-to/troubleshoot.md"
            ) from error


def _read_revision(connection: Connection) -> str | None:
    """Read Alembic's revision; None if it has no table."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _require_empty(connection: Connection) -> None:
    """Refuse a database with tables of an unknown version or an encoding other than UTF-8."""
    if known := metadata.tables.keys() & set(inspect(connection).get_table_names()):
        raise DatabaseError(
            f"the database has tables ({', '.join(sorted(known))}) of an unknown version of FlowGauge: use "
            "an empty database, or restore a backup"
        )
    if connection.dialect.name == "postgresql":
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar()
        if encoding != "UTF8":
            raise DatabaseError(
                f"the database's encoding is {encoding}, which cannot store every text: create it "
                "with createdb --encoding UTF8 --locale C --template template0"
            )


def _migrate(connection: Connection) -> None:
    """Run the missing migrations in the connection's transaction."""
    # Imported here: the import is slow, and most starts migrate nothing.
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
        raise DatabaseError(f"the database's tables cannot be created: {error.orig}") from error
