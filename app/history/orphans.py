"""Files of the history that no inspection needs."""

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Connection, select

from app.database.engine import Database
from app.database.tables import inspections
from app.history.pictures import Pictures, is_map_name, is_picture_name

logger = logging.getLogger("flowgauge.retention")

_COLUMNS = inspections.columns


def sweep(databases: Sequence[Database], pictures: Pictures, folder: str) -> bool:
    """Remove files that no inspection of any database needs.

    In a history they are left by a process that was killed between a deletion's two steps; there, this is to
    be called in the writer. Looks into two folders, of 256 each, at a time.

    Args:
        databases: whose inspections have these files.
        pictures: the files.
        folder: the name of the folders, 00 to ff.

    Returns:
        False: there is nothing more to do in these folders.
    """
    uploads = {
        path.name: path for path in _files(pictures.picture_path(folder).parent) if is_picture_name(path.name)
    }
    maps = {path.stem: path for path in _files(pictures.map_path(folder).parent) if is_map_name(path.stem)}
    for database in databases:
        with database.read() as connection:
            uploads = {sha256: uploads[sha256] for sha256 in unused(connection, uploads.keys())}
            maps = {name: maps[name] for name in _without(connection, _COLUMNS.id, maps.keys())}
    for path in (*uploads.values(), *maps.values()):
        logger.info("%s belongs to no inspection: removed", path)
        remove(path)
    return False


def unused(connection: Connection, pictures: Collection[str]) -> set[str]:
    """Those of some pictures, by sha256, that no inspection keeps."""
    return _without(connection, _COLUMNS.image_sha256, pictures)


def remove(path: Path) -> None:
    """Delete a file; one that cannot be deleted is left to the next sweep."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        logger.exception("%s could not be removed", path)


def _without(connection: Connection, column: Column[Any], values: Collection[str]) -> set[str]:
    """Those values that a column has in no inspection with pictures."""
    left, ordered = set(values), sorted(values)
    for i in range(0, len(ordered), 500):
        wanted = column.in_(ordered[i : i + 500]), _COLUMNS.has_pictures
        left -= set(connection.scalars(select(column).where(*wanted)))
    return left


def _files(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_file()]
    except FileNotFoundError:
        return []
