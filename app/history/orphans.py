"""Orphaned files without an inspection, and the problems of inspections without files."""

import logging
from collections.abc import Collection, Iterable

from sqlalchemy import Column, Connection, select

from app.database.engine import Database
from app.database.tables import inspections
from app.errors.problems import Problem
from app.history import queries
from app.history.inspection_files import find_identifier, find_sha256

logger = logging.getLogger("flowgauge.history")

_COLUMNS = inspections.columns


def files_removed() -> Problem:
    """Return the problem of an inspection whose files retention has removed."""
    return Problem("unknown-inspection", "Retention has removed the image and the map of this inspection.")


def explain_missing_files(database: Database, identifier: str) -> Problem:
    """Return the problem of a missing file: retention has changed the row before, damage has not."""
    with database.read() as connection:
        now = queries.find_inspection(connection, identifier)
    if now is None or not now.has_pictures:
        return files_removed()
    logger.error("the image or the map of inspection %s is missing or damaged on the disk", identifier)
    # Not a 503: clients would retry.
    return Problem(
        "files-lost",
        "The image or the map of this inspection is missing or damaged on the server's disk. Asking again "
        "does not help: restore a backup.",
    )


def find_orphans(database: Database, names: Iterable[str]) -> list[str]:
    """Return the names of files without an inspection.

    A file that is being stored may be among them: the file exists before its row.
    """
    images: dict[str, str] = {}
    maps: dict[str, str] = {}
    for name in names:
        if (sha256 := find_sha256(name)) is not None:
            images[sha256] = name
        elif (identifier := find_identifier(name)) is not None:
            maps[identifier] = name
    with database.read() as connection:
        unused_images = find_unused_images(connection, images.keys())
        unused_maps = _unknown(connection, _COLUMNS.id, maps.keys())
    return [*(images[sha256] for sha256 in unused_images), *(maps[one] for one in unused_maps)]


def find_unused_images(connection: Connection, images: Collection[str]) -> list[str]:
    """Return the images, by sha256, without an inspection."""
    return _unknown(connection, _COLUMNS.image_sha256, images)


def _unknown(connection: Connection, column: Column[str], values: Collection[str]) -> list[str]:
    """Return the values that no inspection with files has in a column."""
    ordered = sorted(values)
    known: set[str] = set()
    for i in range(0, len(ordered), 500):
        some = column.in_(ordered[i : i + 500])
        known.update(connection.scalars(select(column).where(some, _COLUMNS.has_pictures)))
    return [value for value in ordered if value not in known]
