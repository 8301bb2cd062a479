"""sha256 of the maps of a snapshot.

A picture is named by its sha256; of a map nothing else knows what it should be. They lie in a table of their
own in the snapshot's database, which is checked as a whole, and are not brought back with it. A map is hashed
when it is copied: later snapshots take over what the newest whole one before them says.
"""

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Final

from sqlalchemy import Column, MetaData, Table, Text, insert

from app.backup.copying import sha256_or_none
from app.backup.folder import BackupError, BackupFolder
from app.database.engine import Database

SUMS: Final = Table(
    "map_sums",
    MetaData(),
    Column("id", Text, primary_key=True),  # of the inspection
    Column("sha256", Text, nullable=False),
)

Known = Callable[[str], str | None]


def make(database: Database) -> None:
    """Make the table in the database of a snapshot."""
    with database.write() as connection:
        SUMS.create(connection)


def add(database: Database, sums: Mapping[str, str]) -> None:
    """Record sha256 by the inspections' ids."""
    if sums:
        with database.write() as connection:
            connection.execute(insert(SUMS), [{"id": name, "sha256": sha} for name, sha in sums.items()])


@contextmanager
def known_to(folder: BackupFolder) -> Iterator[Known]:
    """What the newest snapshot that has a record, and is whole, says of a map; nothing, where none has.

    A damaged one before this is no reason to forget what the maps were: a rotten one would be taken as it is.
    """
    name = next((name for name in reversed(folder.names()) if _has_sums(folder, name)), None)
    if name is None:
        yield lambda _: None
        return
    # As it lies there: an ordinary connection would write beside it.
    uri = f"{folder.database_path(name).as_uri()}?mode=ro&immutable=1"
    with closing(sqlite3.connect(uri, uri=True)) as connection:

        def find(identifier: str) -> str | None:
            found = "SELECT sha256 FROM map_sums WHERE id = ?"
            row = connection.execute(found, (identifier,)).fetchone()
            return None if row is None else str(row[0])

        yield find


def _has_sums(folder: BackupFolder, name: str) -> bool:
    try:
        snapshot = folder.snapshot(name)
    except BackupError:
        return False
    # The journal's are as old as those of the maps, and quickly seen: a database may be large.
    return snapshot.journal is not None and (
        sha256_or_none(folder.database_path(name)) == snapshot.database_sha256
    )
