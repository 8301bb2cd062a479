"""What a snapshot needs of the files that all snapshots share."""

import shutil
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from sqlalchemy import inspect, null, select

from app.backup.copying import sha256_or_none
from app.backup.folder import BackupError, BackupFolder, CategoryCopy
from app.backup.map_sums import SUMS
from app.database.tables import inspections
from app.history.pictures import is_map_name, is_picture_name
from flows.fastflow import bundle, models_folder
from flows.fastflow.plain_files import temporary_directory

_COLUMNS = inspections.columns
_ROWS: Final = 1000


class Kept(NamedTuple):
    """The files of an inspection: its id, the picture's sha256, the map's bytes, and its sha256 if known."""

    id: str
    picture_sha256: str
    map_bytes: int
    map_sha256: str | None


def kept_files(folder: BackupFolder, name: str) -> Iterator[Kept]:
    """Those of every inspection of a snapshot that has its files.

    Raises:
        BackupError: the snapshot's database cannot be read.
    """
    with folder.opened(name) as database, database.read() as connection:
        known = inspect(connection).has_table(SUMS.name)
        query = select(
            _COLUMNS.id,
            _COLUMNS.image_sha256,
            _COLUMNS.map_bytes,
            SUMS.c.sha256 if known else null().label("sha256"),
        )
        if known:
            query = query.outerjoin_from(inspections, SUMS, SUMS.c.id == _COLUMNS.id)
        streaming = connection.execution_options(yield_per=_ROWS)
        for row in streaming.execute(query.where(_COLUMNS.has_pictures)):
            # They become parts of paths.
            if not (is_map_name(row.id) and is_picture_name(row.image_sha256)):
                raise BackupError(f"snapshot {name} has an inspection that none can have: {row.id[:64]!r}")
            yield Kept(*row)


def calibration(folder: BackupFolder, name: str, category: str, version: str, file: str) -> Path:
    """Where a calibration lies that was made after a version."""
    return folder.snapshots / name / models_folder.CALIBRATIONS / category / version / file


def replacement(copy: CategoryCopy, versions: Container[str]) -> tuple[str, str | None] | None:
    """The active version, if it is not among those there are, and what can be active instead, if anything."""
    active, previous = models_folder.pointer(copy.active or "")
    if active is None or active in versions:
        return None
    return active, previous if previous in versions else None


def say_replaced(category: str, active: str, instead: str | None) -> str:
    """What a snapshot without its active version comes to, for people."""
    then = "none serves until one is activated" if instead is None else f"{instead} is active instead"
    return f"version {active} of {category}, which was active, is not in it; restored, {then}"


@contextmanager
def as_models(
    folder: BackupFolder, category: str, copy: CategoryCopy, version: str, beside: Path | None = None
) -> Iterator[Path]:
    """A version as it lies in a models folder, copied to a temporary one.

    Raises:
        BundleError: its manifest is not the one that was copied.
    """
    with temporary_directory(beside or folder.bundles) as temporary:
        target = temporary / category / version
        target.parent.mkdir()
        shutil.copytree(folder.bundles / copy.versions[version], target, symlinks=True)
        if sha256_or_none(target / bundle.MANIFEST) != copy.versions[version]:
            raise bundle.BundleError("its manifest is not as it was written")
        yield temporary
