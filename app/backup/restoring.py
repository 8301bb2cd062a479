"""Bringing a snapshot back into an empty place, and checking that it could be."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from filelock import Timeout
from sqlalchemy import select

from app.access import COMMAND_LINE
from app.audit import Audit
from app.backup.copying import copy_file, copy_rows, is_empty
from app.backup.folder import JOURNAL, BackupError, BackupFolder, CategoryCopy, Snapshot
from app.category_settings import SETTINGS
from app.database.engine import Database
from app.database.tables import inspections
from app.history.history import folder_lock
from app.history.identity import forget
from app.history.pictures import Pictures, is_map_name, is_picture_name
from app.settings import Settings
from flows.fastflow import bundle, models_folder
from flows.fastflow.plain_files import FileError, replace_file, sha256_of, temporary_directory

_COLUMNS = inspections.columns
_ROWS: Final = 1000
_LARGEST: Final = 2**40


@dataclass(frozen=True)
class Restored:
    """What was brought back.

    Attributes:
        name: the snapshot's.
        rows: of each table.
        versions: of models that were not there.
        left_alone: what was there already and is otherwise in the snapshot, a sentence each.
    """

    name: str
    rows: dict[str, int]
    versions: int
    left_alone: list[str]


def verify(folder: BackupFolder, name: str) -> list[str]:
    """What is wrong with a snapshot; nothing, if it can be brought back whole.

    Reads every file that it needs. Models are verified as the service would, but not run.

    Raises:
        BackupError: it cannot be read at all.
    """
    snapshot = folder.snapshot(name)
    if _sha256(folder.database_path(name)) != snapshot.database_sha256:
        return ["its database is not as it was written"]
    faults = []
    known: dict[str, bool] = {}
    for identifier, sha256, map_bytes in _files(folder, name):
        if sha256 not in known:
            known[sha256] = _sha256(folder.pictures.picture_path(sha256)) == sha256
            if not known[sha256]:
                faults.append(f"the picture {sha256} is missing or damaged")
        path = folder.pictures.map_path(identifier)
        if not path.is_file() or path.stat().st_size != map_bytes:
            faults.append(f"the map of inspection {identifier} is missing or damaged")
    for file, sha256 in snapshot.backbones.items():
        if _sha256(folder.backbones / file) != sha256:
            faults.append(f"the weights {file} are missing or damaged")
    for category, copy in snapshot.models.items():
        for version, files in copy.calibrations.items():
            for file, sha256 in files.items():
                if _sha256(_calibration(folder, name, category, version, file)) != sha256:
                    faults.append(f"the calibration {file} of {category}/{version} is missing or damaged")
        for version in copy.versions:
            try:
                with _as_models(folder, category, copy, version) as models:
                    bundle.verify(models / category / version)
            except (bundle.BundleError, FileError, OSError) as error:
                faults.append(f"model {category}/{version} is missing or damaged: {error}")
    return faults


def restore(settings: Settings, folder: BackupFolder, name: str) -> Restored:
    """Bring a snapshot back. Killed on the way, it can be done again.

    Args:
        settings: of the service, which must not run: history, database and models matter. The history must be
            empty; in the models folder nothing is overwritten.
        folder: the backup.
        name: of the snapshot.

    Raises:
        BackupError: the snapshot is damaged, or the place is not empty or in use.
        DatabaseError: the database cannot be used.
        OSError: the disk takes no more.
    """
    snapshot = folder.snapshot(name)
    history = settings.history.absolute()
    history.mkdir(parents=True, exist_ok=True)
    try:
        with folder_lock(history).acquire(timeout=0):
            return _restore(settings, folder, name, snapshot)
    except Timeout as error:
        raise BackupError(f"a server uses the history {history}: stop it first") from error


def _restore(settings: Settings, folder: BackupFolder, name: str, snapshot: Snapshot) -> Restored:
    if _sha256(folder.database_path(name)) != snapshot.database_sha256:
        raise BackupError(f"the database of snapshot {name} is damaged; `flowgauge backup verify` tells more")
    target = Database(settings.database_url)
    try:
        target.upgrade()
        if not is_empty(target):
            raise BackupError(
                f"the database of the history {settings.history.absolute()} is not empty; restore into a new "
                "folder, or a new database, and let the service use that"
            )
        # A service that was started here on trial has marked the place as a whole history. Until it is one,
        # none may start on it, and take files for superfluous whose rows have not come yet.
        forget(settings.history.absolute(), target)
        pictures = Pictures(settings.history.absolute())
        pictures.open()
        try:
            for identifier, sha256, _ in _files(folder, name):
                copy_file(folder.pictures.picture_path(sha256), pictures.picture_path(sha256))
                copy_file(folder.pictures.map_path(identifier), pictures.map_path(identifier))
        except (FileNotFoundError, FileError) as error:
            raise BackupError(
                f"a picture or a map of snapshot {name} is missing; `flowgauge backup verify` tells which"
            ) from error
        journal = settings.history.absolute() / JOURNAL
        for path in (folder.snapshots / name / JOURNAL).glob("*.journal"):
            copy_file(path, journal / path.name)
        versions, left_alone = _restore_models(settings.models.absolute(), folder, snapshot, name)
        # The rows last, in one transaction: until then it can all be done again.
        with folder.opened(name) as source:
            rows = copy_rows(source, target)
        Audit(target).write(COMMAND_LINE, "backup.restore", name, "done", rows)
    finally:
        target.close()
    return Restored(name, rows, versions, left_alone)


def _restore_models(
    models: Path, folder: BackupFolder, snapshot: Snapshot, name: str
) -> tuple[int, list[str]]:
    restored, left_alone = 0, []
    for file in snapshot.backbones:
        copy_file(folder.backbones / file, models / models_folder.BACKBONES / file)
    for category, copy in snapshot.models.items():
        (models / category).mkdir(parents=True, exist_ok=True)
        for version, sha256 in copy.versions.items():
            if (models / category / version).exists():
                if _sha256(models / category / version / bundle.MANIFEST) != sha256:
                    left_alone.append(f"version {category}/{version} is another one than the snapshot's")
                continue
            with _as_models(folder, category, copy, version, models) as staged:
                manifest = bundle.verify(staged / category / version)
                models_folder.move_into_place(staged / category / version, models, manifest)
            restored += 1
        left_alone += _restore_calibrations(models, folder, name, category, copy)
        for file, text in ((models_folder.ACTIVE, copy.active), (SETTINGS, copy.settings)):
            path = models / category / file
            if text is not None and not path.exists():
                replace_file(path, text.encode())
            elif text is not None and path.read_bytes() != text.encode():
                left_alone.append(f"the file {file} of {category} says something else than in the snapshot")
    return restored, left_alone


def _restore_calibrations(
    models: Path, folder: BackupFolder, name: str, category: str, copy: CategoryCopy
) -> list[str]:
    """Bring the calibrations of a category's versions back; what was left alone."""
    left_alone = []
    for version, files in copy.calibrations.items():
        for file, sha256 in files.items():
            source = _calibration(folder, name, category, version, file)
            target = models / category / models_folder.CALIBRATIONS / version / file
            if target.exists():
                if _sha256(target) != sha256:
                    left_alone.append(
                        f"calibration {file} of {category}/{version} is another one than the snapshot's"
                    )
            elif _sha256(source) == sha256:
                copy_file(source, target)
            else:
                left_alone.append(
                    f"the calibration {file} of {category}/{version} is damaged in the snapshot"
                )
    return left_alone


def _calibration(folder: BackupFolder, name: str, category: str, version: str, file: str) -> Path:
    return folder.snapshots / name / models_folder.CALIBRATIONS / category / version / file


@contextmanager
def _as_models(
    folder: BackupFolder, category: str, copy: CategoryCopy, version: str, beside: Path | None = None
) -> Iterator[Path]:
    """A version as it lies in a models folder, copied to a temporary one."""
    with temporary_directory(beside or folder.bundles) as temporary:
        target = temporary / category / version
        target.parent.mkdir()
        shutil.copytree(folder.bundles / copy.versions[version], target, symlinks=True)
        if _sha256(target / bundle.MANIFEST) != copy.versions[version]:
            raise bundle.BundleError("its manifest is not as it was written")
        yield temporary


def _files(folder: BackupFolder, name: str) -> Iterator[tuple[str, str, int]]:
    """Id, picture's sha256 and map's bytes of every inspection of a snapshot that has its files."""
    with folder.opened(name) as database, database.read() as connection:
        query = select(_COLUMNS.id, _COLUMNS.image_sha256, _COLUMNS.map_bytes)
        streaming = connection.execution_options(yield_per=_ROWS)
        for row in streaming.execute(query.where(_COLUMNS.has_pictures)):
            # They become parts of paths.
            if not (is_map_name(row.id) and is_picture_name(row.image_sha256)):
                raise BackupError(f"snapshot {name} has an inspection that none can have: {row.id[:64]!r}")
            yield row.id, row.image_sha256, row.map_bytes


def _sha256(path: Path) -> str | None:
    try:
        return sha256_of(path, _LARGEST)
    except (OSError, FileError):
        return None
