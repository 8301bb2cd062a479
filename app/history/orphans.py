"""Files of the history that no inspection needs."""

import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Column, ColumnElement, Connection, select

from app.database.engine import Database
from app.database.tables import inspections
from app.history.pictures import Pictures, is_map_name, is_picture_name

logger = logging.getLogger("flowgauge.retention")

_COLUMNS = inspections.columns


@dataclass(frozen=True)
class Lost:
    """What inspections had and lost.

    Attributes:
        uploads: sha256 of the pictures.
        maps: the inspections' ids.
    """

    uploads: frozenset[str] = frozenset()
    maps: frozenset[str] = frozenset()

    @classmethod
    def of(cls, database: Database, ids: Collection[str]) -> Self:
        """What these inspections of a database had."""
        with database.read() as connection:
            uploads = frozenset(_of(connection, _COLUMNS.image_sha256, _COLUMNS.id, ids))
        return cls(uploads, frozenset(ids))


@dataclass(frozen=True)
class Files:
    """Pictures and maps of one folder each, of 256.

    Attributes:
        uploads: by sha256.
        maps: by the inspection's id.
    """

    uploads: Mapping[str, Path]
    maps: Mapping[str, Path]

    @classmethod
    def of(cls, pictures: Pictures, folder: str) -> Self:
        """Those that there are in the folders of a name, 00 to ff."""
        uploads, maps = pictures.picture_path(folder).parent, pictures.map_path(folder).parent
        return cls(
            {path.name: path for path in _files(uploads) if is_picture_name(path.name)},
            {path.stem: path for path in _files(maps) if is_map_name(path.stem)},
        )

    def not_of(
        self, database: Database, lost: Lost = Lost(), having: ColumnElement[bool] = _COLUMNS.has_pictures
    ) -> Self:
        """Those that no inspection of a database has.

        Args:
            database: whose inspections have such files.
            lost: files that are to count as if an inspection had them.
            having: which inspections have their files.
        """
        with database.read() as connection:
            uploads = _without(connection, _COLUMNS.image_sha256, self.uploads.keys() - lost.uploads, having)
            maps = _without(connection, _COLUMNS.id, self.maps.keys() - lost.maps, having)
        return type(self)(
            {sha256: self.uploads[sha256] for sha256 in uploads}, {name: self.maps[name] for name in maps}
        )

    def remove(self) -> None:
        """Delete them."""
        for path in (*self.uploads.values(), *self.maps.values()):
            logger.info("%s belongs to no inspection: removed", path)
            remove(path)


def sweep(database: Database, pictures: Pictures, folder: str) -> bool:
    """Remove files that no inspection of a history needs; to be called in its writer.

    They are left by a process that was killed between a deletion's two steps. Looks into two folders, of 256
    each, at a time.

    Args:
        database: whose inspections have these files.
        pictures: the files.
        folder: the name of the folders, 00 to ff.

    Returns:
        False: there is nothing more to do in these folders.
    """
    Files.of(pictures, folder).not_of(database).remove()
    return False


def unused(connection: Connection, pictures: Collection[str]) -> set[str]:
    """Those of some pictures, by sha256, that no inspection keeps."""
    return _without(connection, _COLUMNS.image_sha256, pictures, _COLUMNS.has_pictures)


def remove(path: Path) -> None:
    """Delete a file; one that cannot be deleted is left to the next sweep."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        logger.exception("%s could not be removed", path)


def _without(
    connection: Connection, column: Column[Any], values: Collection[str], having: ColumnElement[bool]
) -> set[str]:
    """Those values that a column has in no inspection of which a condition holds."""
    return set(values).difference(_of(connection, column, column, values, having))


def _of(
    connection: Connection,
    column: Column[Any],
    by: Column[Any],
    values: Collection[str],
    *conditions: ColumnElement[bool],
) -> Iterator[str]:
    """What a column says of the inspections that have one of these values in another."""
    ordered = sorted(values)
    for i in range(0, len(ordered), 500):
        yield from connection.scalars(select(column).where(by.in_(ordered[i : i + 500]), *conditions))


def _files(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_file()]
    except FileNotFoundError:
        return []
