"""Files of the history that no inspection needs."""

import logging
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Column, Connection, select

from app.database.engine import Database
from app.database.tables import inspections
from app.history.pictures import Pictures

logger = logging.getLogger("flowgauge.retention")

_COLUMNS = inspections.columns
_PICTURE: Final = re.compile(r"[0-9a-f]{64}")
_MAP: Final = re.compile(r"[0-9a-f-]{36}\.npy")


def sweep(database: Database, pictures: Pictures, folder: str) -> bool:
    """Remove what a process has left behind that was killed between a deletion's two steps.

    To be called in the history's writer. Looks into two folders, of 256 each, at a time.

    Args:
        database: of the history.
        pictures: its files.
        folder: the name of the folders, 00 to ff.

    Returns:
        False: there is nothing more to do in these folders.
    """
    uploads = {path.name: path for path in _files(pictures.picture_path(folder).parent, _PICTURE)}
    maps = {path.stem: path for path in _files(pictures.map_path(folder).parent, _MAP)}
    with database.read() as connection:
        left = [uploads[sha256] for sha256 in unused(connection, uploads.keys())]
        left += [maps[identifier] for identifier in _without(connection, _COLUMNS.id, maps.keys())]
    for path in left:
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


def _files(folder: Path, name: re.Pattern[str]) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if name.fullmatch(path.name) and path.is_file()]
    except FileNotFoundError:
        return []
