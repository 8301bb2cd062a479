"""Ids of the inspections whose picture or map the history had lost when a snapshot was taken.

The last copies may be in the backup, so they stay for as long as a snapshot has such an id. There may be
millions, after a disk was lost say: they lie in a table of their own in the snapshot's database, as the
sha256 of maps do, and are not brought back with it. Snapshots of versions that made no such table have them
in snapshot.json.
"""

from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, MetaData, Table, Text, exists, insert, inspect, or_

from app.database.engine import Database
from app.database.tables import inspections

LOST: Final = Table("lost_files", MetaData(), Column("id", Text, primary_key=True))  # of the inspection

_COLUMNS: Final = inspections.columns


def make(database: Database) -> None:
    """Make the table in the database of a snapshot."""
    with database.write() as connection:
        LOST.create(connection)


def add(database: Database, ids: Collection[str]) -> None:
    """Record inspections."""
    if ids:
        with database.write() as connection:
            connection.execute(insert(LOST), [{"id": identifier} for identifier in ids])


def had_files(database: Database) -> ColumnElement[bool]:
    """Which inspections of a snapshot have their files, or had lost them; those of retention do not count."""
    with database.read() as connection:
        known = inspect(connection).has_table(LOST.name)
    there: ColumnElement[Any] = _COLUMNS.has_pictures
    # Not `id IN`: SQLite would go through all that have pictures and all that are lost, by an index each,
    # and not through the inspections that are asked about.
    return or_(there, exists().where(LOST.c.id == _COLUMNS.id)) if known else there
