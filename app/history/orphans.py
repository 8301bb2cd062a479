"""Files of the history that no inspection of the database has, and inspections whose files are gone."""

import logging
from collections.abc import Collection, Iterable
from pathlib import Path

from sqlalchemy import Column, Connection, select

from app.database.engine import Database
from app.database.tables import inspections
from app.errors.problems import Problem
from app.history import queries
from app.history.inspection_files import InspectionFiles

logger = logging.getLogger("flowgauge.history")

_COLUMNS = inspections.columns


def files_removed() -> Problem:
    """What is answered where retention has removed an inspection's files."""
    return Problem("unknown-inspection", "Retention has removed the picture and the map of this inspection.")


def explain_missing_files(database: Database, identifier: str) -> Problem:
    """Why a file is not there. Retention changes the row first, so the row says whether it was that."""
    with database.read() as connection:
        now = queries.find_inspection(connection, identifier)
    if now is None or not now.has_pictures:
        return files_removed()
    logger.error("the picture or the map of inspection %s is missing or damaged on the disk", identifier)
    # No 503: clients would ask again and again.
    return Problem(
        "files-lost",
        "The picture or the map of this inspection is missing or damaged on the server's disk, so it is not "
        "shown. Asking again does not help: a backup can bring it back.",
    )


def find_orphans(database: Database, pictures: InspectionFiles, files: Iterable[Path]) -> list[Path]:
    """Those of some files that no inspection has.

    A file that is being filed may be among them: it is there before its row.
    """
    images: dict[str, Path] = {}
    maps: dict[str, Path] = {}
    for path in files:
        if pictures.is_picture(path):
            images[path.name] = path
        elif pictures.is_map(path):
            maps[path.stem] = path
    with database.read() as connection:
        unused_images = find_unused_images(connection, images.keys())
        unused_maps = _unknown(connection, _COLUMNS.id, maps.keys())
    return [*(images[name] for name in unused_images), *(maps[name] for name in unused_maps)]


def find_unused_images(connection: Connection, images: Collection[str]) -> list[str]:
    """Those of some images, by sha256, that no inspection has."""
    return _unknown(connection, _COLUMNS.image_sha256, images)


def _unknown(connection: Connection, column: Column[str], values: Collection[str]) -> list[str]:
    """The values that a column has in no inspection with files."""
    ordered = sorted(values)
    known: set[str] = set()
    for i in range(0, len(ordered), 500):
        some = column.in_(ordered[i : i + 500])
        known.update(connection.scalars(select(column).where(some, _COLUMNS.has_pictures)))
    return [value for value in ordered if value not in known]
