"""The connection to the database: SQLite in WAL mode, or PostgreSQL, by URL."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, InterfaceError, InternalError, OperationalError, ProgrammingError
from sqlalchemy.exc import DatabaseError as AnyDatabaseError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.database import connections
from app.database.tables import REVISION, metadata

_MIGRATIONS = Path(__file__).parent / "migrations"
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

_UNREADABLE = (
    "the database URL (FLOWGAUGE_DATABASE) cannot be read; it looks like sqlite:////DIR/history.sqlite or "
    "postgresql://USER:PASSWORD@HOST:5432/NAME, where @ : / ? and % of a user or a password must be "
    "percent-encoded: %40 %3A %2F %3F %25"
)


class DatabaseError(ValueError):
    """The database cannot be used as it was asked for."""


class DatabaseUnavailable(DatabaseError):  # noqa: N818  (a state, which may pass)
    """The database does not answer, is full, or was locked for too long; trying again later can help."""


class DatabaseDamaged(DatabaseUnavailable):
    """The file of the database is damaged, or none; no trying again will help, a backup will."""


def parse_url(url: str) -> URL:
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


def redact_url(url: URL) -> str:
    """A database's URL for messages and logs: of its password three asterisks, of secret options nothing.

    SQLAlchemy hides the password before the host alone, and PostgreSQL takes one as an option too.
    """
    secret = [name for name in url.query if "password" in name or "secret" in name]
    return url.difference_update_query(secret).render_as_string(hide_password=True)


class Database:
    """A database of the service, by a URL as of `parse_url`. May be used from several threads at once."""

    def __init__(self, url: str) -> None:
        parsed = parse_url(url)
        self.is_sqlite = parsed.drivername == "sqlite"
        if self.is_sqlite and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        create = connections.create_sqlite if self.is_sqlite else connections.create_postgresql
        self.engine = create(parsed)
        # SQLite's file, so that another one in its place is noticed; None before the first connection.
        self._opened: os.stat_result | None = None
        if self.is_sqlite:
            event.listen(self.engine, "connect", self._note_file)

    def upgrade(self) -> None:
        """Bring the tables to this version of FlowGauge, all steps or none.

        Raises:
            DatabaseError: it is of a later version of FlowGauge or of none, or cannot hold every text.
        """
        with self.write() as connection:
            if not self.is_sqlite:
                # Two servers that start at once would both create the tables.
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(4661783)")
            found = _revision(connection)
            if found is None:
                _require_fresh(connection)
            if found != REVISION:
                _migrate(connection)

    def prepare(self) -> None:
        """Make the tables where there are none, for commands: a server that runs keeps those that it has.

        Raises:
            DatabaseError: as `upgrade`; or another version of FlowGauge has made the tables.
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
        self._require_own_file()
        level = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}
        with self._translated(), self.engine.connect() as connection:
            connection.execution_options(**level)
            with connection.begin():
                yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction: all of it happens, or nothing.

        Raises:
            DatabaseUnavailable: the database fails, on entering, within, or when it is to commit; or SQLite's
                file is no longer the one at its path.
        """
        self._require_own_file()
        with self._translated(), self.engine.connect() as connection:
            connection.execution_options(flowgauge_write=True)
            with connection.begin():
                yield connection
        self._require_own_file()

    def close(self) -> None:
        """Close all connections; one that a thread still uses, as soon as it has done."""
        # The pool that was disposed of would keep it open for nobody.
        event.listen(self.engine, "checkin", lambda connection, record: connection and record.invalidate())
        self.engine.dispose()

    def _require_own_file(self) -> None:
        """Refuse to go on where SQLite's file was removed or replaced since it was opened.

        SQLite would go on reading and writing the old file, which nobody ever finds again.
        """
        file = Path(self.engine.url.database or "")
        if self._opened and not (file.exists() and os.path.samestat(self._opened, file.stat())):
            raise DatabaseUnavailable(
                f"the database {file} was removed or replaced while it was in use: put it back, or restart "
                "the server to go on with what is there now; what was answered since waits in the journal"
            )

    def _note_file(self, *_: object) -> None:
        self._opened = self._opened or Path(self.engine.url.database or "").stat()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        file = self.engine.url.database
        try:
            yield
        except (OperationalError, InterfaceError, InternalError, PoolTimeout) as error:
            reason = " ".join(str(getattr(error, "orig", error)).split())
            raise DatabaseUnavailable(
                f"the database {file} cannot be used ({reason}): there is no room, another program holds it, "
                "or the file, those beside it whose names begin like its own, or its folder is not the "
                "server's user's"
                if self.is_sqlite
                else "the database does not answer, or takes no more; is it running, and FLOWGAUGE_DATABASE "
                f"right? ({reason})"
            ) from error
        except (AnyDatabaseError, UnicodeDecodeError) as error:
            fault = getattr(error, "orig", error)
            # The lowest byte of SQLite's code; the rest tells details. Of a damaged name, SQLite's error
            # is no text.
            damaged = (getattr(fault, "sqlite_errorcode", None) or 0) & 0xFF in _DAMAGED
            if not (damaged or (self.is_sqlite and isinstance(fault, UnicodeDecodeError))):
                raise
            raise DatabaseDamaged(
                f"{file} is damaged ({fault}), which no start will mend. Move it and the files beside it "
                "whose names begin like its own away, and bring the newest snapshot back into a new folder "
                "with `flowgauge backup restore`; what was answered since waits in the old folder's journal "
                "alone; docs/how-to/troubleshoot.md says how to file it"
            ) from error


def _revision(connection: Connection) -> str | None:
    """Where Alembic notes which of its steps were taken."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _require_fresh(connection: Connection) -> None:
    """Refuse to make the tables beside some of an unknown version, or where not every text can be kept."""
    if known := metadata.tables.keys() & set(inspect(connection).get_table_names()):
        raise DatabaseError(
            f"the database has tables ({', '.join(sorted(known))}) and does not say of which version of "
            "FlowGauge: use an empty one, or restore a backup"
        )
    if connection.dialect.name == "postgresql":
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar()
        if encoding != "UTF8":
            raise DatabaseError(
                f"the database's encoding is {encoding}, which cannot hold every text that is sent: make it "
                "by createdb --encoding UTF8 --locale C --template template0"
            )


def _migrate(connection: Connection) -> None:
    """Take the steps that are missing, in the transaction of a connection."""
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
