"""Which folder and which database are one history: both hold the same identity.

Retention deletes the files that no inspection of the database needs. Over another database that would be all
of them: over an empty one, because FLOWGAUGE_DATABASE is missing from a file or has a typo, or over one that
belongs to another server with a folder of its own.
"""

import uuid
from pathlib import Path
from typing import Final

from sqlalchemy import delete, insert, select

from app.database.engine import Database, shown
from app.database.tables import identity, inspections
from flows.fastflow.plain_files import replace_file

IDENTITY: Final = "identity"


class IdentityError(ValueError):
    """A folder and a database are not of one history; the message says what to do."""


def expect_together(folder: Path, database: Database, *, has_files: bool, has_journal: bool) -> str:
    """Make sure that a folder and a database are one history; a new one gets its identity here.

    A database without an identity was never used by a server. It is a new history's, if the folder has
    nothing that could be lost; or it was restored, and then neither of the two has an identity, and its
    inspections came after the files. One that was restored in part has files and no inspections.

    Args:
        folder: of the history, locked.
        database: with all tables.
        has_files: whether there are pictures or maps in the folder.
        has_journal: whether inspections wait there to be filed.

    Returns:
        The identity.

    Raises:
        IdentityError: they do not belong together.
        DatabaseUnavailable: the database does not answer.
        OSError: the folder cannot be written.
    """
    path = folder / IDENTITY
    here = _read(path)
    with database.write() as connection:
        if not database.is_sqlite:
            # Of two servers that start at once on a new database, one makes the identity, the other sees it.
            connection.exec_driver_sql("LOCK TABLE identity IN EXCLUSIVE MODE")
        there = connection.scalar(select(identity.c.id))
        inspected = connection.scalar(select(inspections.c.id).limit(1)) is not None
        if there is not None:
            fine = here == there
        elif here is None:
            fine = inspected or not has_files
        else:
            fine = not (inspected or has_files or has_journal)
        if not fine:
            raise IdentityError(_message(folder, database, here, there))
        if there is None:
            # A fresh one: what the folder had may stand in another database too.
            there = str(uuid.uuid4())
            connection.execute(insert(identity).values(id=there))
            replace_file(path, there.encode())
    return there


def of(database: Database) -> str | None:
    """The identity of a database with all tables, None where no server has used it.

    Raises:
        DatabaseUnavailable: the database does not answer.
    """
    with database.read() as connection:
        found: str | None = connection.scalar(select(identity.c.id))
    return found


def forget(folder: Path, database: Database) -> None:
    """Take the identity from a folder and a database that are going to be another history.

    Raises:
        DatabaseUnavailable: the database does not answer.
        OSError: the folder cannot be written.
    """
    (folder / IDENTITY).unlink(missing_ok=True)
    with database.write() as connection:
        connection.execute(delete(identity))


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()[:36] or None
    except FileNotFoundError:
        return None


def _message(folder: Path, database: Database, here: str | None, there: str | None) -> str:
    url = shown(database.engine.url)
    text = (
        f"this folder belongs to another database, or was restored only in part: the identity of {folder} is "
        f"{here or 'none'}, that of {url} is {there or 'none'}. Set FLOWGAUGE_HISTORY and FLOWGAUGE_DATABASE "
        "to a folder and a database that were used together; a new server needs both of its own, and what "
        "`flowgauge backup restore` has not finished must be restored again. Nothing was deleted: it "
        "would have been every picture that this database does not know."
    )
    if there is not None:
        text += f" If they are one history all the same, write {there} into {folder / IDENTITY}."
    return text
