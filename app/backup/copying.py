"""Copying rows from database to database, and files from folder to folder."""

import errno
import filecmp
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, delete, func, insert, select, text

from app.database.engine import Database
from app.database.tables import deliveries, identity, metadata, sessions
from flows.fastflow.plain_files import FileError, open_plain, sha256_of

_ROWS: Final = 1000
_CHUNK: Final = 1024 * 1024
NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)
LARGEST: Final = 2**40  # of a file; there only is no limit

# In an order in which no row refers to one that comes later. Sessions stay behind: people log in again. The
# identity does too: what is restored is another history, maybe beside the first, and gets one at its start.
TABLES: Final = tuple(table for table in metadata.sorted_tables if table not in (sessions, identity))


def copy_rows(source: Database, target: Database) -> dict[str, int]:
    """Copy `TABLES`, as they are at one moment, in one transaction.

    Args:
        source: may be in use.
        target: has all tables, empty as `is_empty` says.

    Returns:
        How many rows each table had.

    Raises:
        DatabaseUnavailable: one of them does not answer; the target is as before.
    """
    counts = {}
    with source.read() as reading, target.write() as writing:
        writing.execute(delete(deliveries))
        for table in TABLES:
            counts[table.name] = 0
            streaming = reading.execution_options(yield_per=_ROWS)
            for rows in streaming.execute(select(table)).mappings().partitions():
                writing.execute(insert(table), [dict(row) for row in rows])
                counts[table.name] += len(rows)
        if not target.is_sqlite:
            _count_on(writing)
    return counts


def is_empty(database: Database) -> bool:
    """Whether no table has a row, but for how far the sinks of a service on trial have got: nowhere."""
    tables = [table for table in TABLES if table is not deliveries]
    with database.read() as connection:
        return not any(connection.scalar(select(func.count()).select_from(table)) for table in tables)


def copy_file(source: Path, target: Path) -> int:
    """Copy a file that never changes, under another name that is then renamed.

    Returns:
        The bytes copied; 0 where the target has as many already.

    Raises:
        FileError: the source is no regular file.
        OSError: it is not there, or the disk takes no more.
    """
    with open_plain(source) as file:
        size = source.stat().st_size
        try:
            if target.stat().st_size == size:
                return 0
        except FileNotFoundError:
            target.parent.mkdir(parents=True, exist_ok=True)
        # What a killed process has left under this name is overwritten.
        part = target.with_name(f".{target.name}.part")
        try:
            with _told_where(target), part.open("wb") as copy:
                shutil.copyfileobj(file, copy, _CHUNK)
            part.replace(target)
        except OSError:
            part.unlink(missing_ok=True)
            raise
    return size


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file's bytes.

    Raises:
        OSError: it is not there, or the disk takes no more, which names the target.
    """
    with source.open("rb") as file, _told_where(target), target.open("wb") as copy:
        shutil.copyfileobj(file, copy, _CHUNK)


@contextmanager
def _told_where(target: Path) -> Iterator[None]:
    """Let a full disk be told by a file that is on it: what copies names none."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise OSError(error.errno, error.strerror, str(target)) from error


def copy_anew(source: Path, target: Path) -> None:
    """Copy a file to where there may be another one as large: what a power cut has left of it, say.

    Raises:
        FileError, OSError: as `copy_file`.
    """
    with suppress(FileNotFoundError):
        if not filecmp.cmp(source, target, shallow=False):
            target.unlink()
    copy_file(source, target)


def sha256_or_none(path: Path) -> str | None:
    """The sha256 of a file; None where there is no regular file that can be read."""
    try:
        return sha256_of(path, LARGEST)
    except (OSError, FileError):
        return None


def _count_on(connection: Connection) -> None:
    """Let PostgreSQL number new rows after those that were copied with their numbers."""
    for table in TABLES:
        for column in table.primary_key:
            sequence: Any = connection.scalar(
                text("SELECT pg_get_serial_sequence(:table, :column)"),
                {"table": table.name, "column": column.name},
            )
            if sequence is not None and (last := connection.scalar(select(func.max(column)))) is not None:
                connection.execute(text("SELECT setval(:name, :last)"), {"name": sequence, "last": last})
