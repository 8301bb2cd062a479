"""Taking a snapshot of a service, which may run meanwhile.

Everything that was answered before it begins is in it. The order matters: the journal before the database, as
what is filed in between is then in the database; the database before the files, as it says which are needed.
Files that retention removes in between are missed, and the snapshot's database is told so.
"""

import errno
import itertools
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

from sqlalchemy import select, update

from app.access import COMMAND_LINE
from app.audit import Audit
from app.backup import lost, map_sums
from app.backup.copying import LARGEST, NO_ROOM, copy_file, copy_rows, sha256_or_none
from app.backup.folder import (
    DATABASE,
    JOURNAL,
    SNAPSHOT,
    BackupError,
    BackupFolder,
    CategoryCopy,
    Snapshot,
    read_snapshot,
)
from app.category_settings import SETTINGS
from app.database import clock
from app.database.engine import Database, shown
from app.database.tables import inspections
from app.history import identity
from app.history.pictures import Pictures
from app.settings import Settings
from flows.fastflow import bundle, models_folder
from flows.fastflow.plain_files import FileError, read_file, sha256_of, temporary_directory
from flows.fastflow.weights import NAMED

_COLUMNS = inspections.columns
_ROWS: Final = 1000
_MAX_TEXT: Final = 16 * 2**20
# Of inspections that have lost their files so many are named one by one: nobody reads a sentence for each of
# millions.
_NAMED: Final = 1000
_NO_MEANS: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


@dataclass(frozen=True)
class Taken:
    """A snapshot that was taken.

    Attributes:
        name: its name.
        snapshot: what it says.
        copied: bytes that no earlier snapshot had.
        behind: the snapshot before it, if by the clock that one is later: one of the times is wrong.
    """

    name: str
    snapshot: Snapshot
    copied: int
    behind: str | None


def take(settings: Settings, folder: BackupFolder) -> Taken:
    """Take a snapshot.

    Args:
        settings: of the service: history, database and models matter.
        folder: where to; made if absent.

    Raises:
        BackupError: there is nothing to copy, or not what a server has used; or what the snapshot would say
            of itself could not be read later.
        DatabaseError: the database cannot be used, or another version of FlowGauge has made it.
        OSError: the disk takes no more; nothing half-written is left.
    """
    history = settings.history.absolute()
    if not settings.has_database:
        raise BackupError(f"there is no history in {history}; FLOWGAUGE_HISTORY or --history names it")
    if not settings.models.is_dir():
        raise BackupError(
            f"there is no models folder {settings.models.absolute()}; FLOWGAUGE_MODELS or --models names it"
        )
    if history == folder.path or history in folder.path.parents:
        raise BackupError("a backup inside the history would be lost with it: name a folder elsewhere")
    database = Database(settings.database_url)
    try:
        database.prepare()
        if identity.of(database) is None:
            raise BackupError(
                f"{shown(database.engine.url)} was never used by a server: an empty snapshot would stand for "
                "the history. Set FLOWGAUGE_HISTORY and FLOWGAUGE_DATABASE as for the server; after a "
                "restore, start the server once"
            )
        folder.make()
        with folder.locked(), temporary_directory(folder.snapshots) as staging:
            taken = _Taking(settings, folder, staging, database).take(clock.now_ms())
            Audit(database).write(COMMAND_LINE, "backup.create", taken.name, "done", taken.snapshot.rows)
    finally:
        database.close()
    return taken


class _Taking:
    def __init__(self, settings: Settings, folder: BackupFolder, staging: Path, database: Database) -> None:
        self._settings = settings
        self._folder = folder
        self._staging = staging
        self._database = database
        self._newest = next(reversed(folder.names()), None)
        self._copied = 0
        self._problems: list[str] = []
        self._lost: list[str] = []
        self._unnamed = 0

    def take(self, at_ms: int) -> Taken:
        journal = self._journal()
        revision, rows = self._rows()
        models, backbones = self._models()
        snapshot = Snapshot(
            format=1,
            created=clock.iso(at_ms),
            flowgauge=version("flowgauge"),
            revision=revision,
            database_sha256=sha256_of(self._staging / DATABASE, LARGEST),
            rows=rows,
            models=models,
            backbones=backbones,
            problems=self._problems,
            number=1 + (0 if self._newest is None else self._folder.number(self._newest)),
            journal=journal,
            lost=self._lost,
            unnamed=self._unnamed,
        )
        self._write(snapshot)
        # Losing power must not leave a snapshot that names files which never reached the disk.
        os.sync()
        while (place := self._folder.snapshots / _name(at_ms)).exists():  # the clock was here before
            at_ms += 1
        self._staging.rename(place)
        behind = self._newest if self._newest is not None and place.name < self._newest else None
        return Taken(place.name, snapshot, self._copied, behind)

    def _write(self, snapshot: Snapshot) -> None:
        """Write what a snapshot says; one that nobody could read would keep all others from being deleted.

        Raises:
            BackupError: it cannot be read back.
        """
        path = self._staging / SNAPSHOT
        path.write_text(snapshot.model_dump_json(indent=1), encoding="utf-8")
        try:
            read_snapshot(path)
        except BackupError as error:
            raise BackupError(
                f"the new snapshot's {SNAPSHOT}, {path.stat().st_size:,} bytes, cannot be read back: no "
                "snapshot was taken"
            ) from error

    def _journal(self) -> dict[str, str]:
        """Copy the journal, with what could not be filed; sha256 of each file as it was copied."""
        source = self._settings.history.absolute() / JOURNAL
        target = self._staging / JOURNAL
        target.mkdir()
        sums = {}
        # The damaged ones last: what is set aside meanwhile is among them.
        globs = (sorted(source.glob(pattern)) for pattern in ("*.journal", "*.damaged"))
        for path in itertools.chain.from_iterable(globs):
            try:
                self._copied += copy_file(path, target / path.name)
                sums[path.name] = sha256_of(target / path.name, LARGEST)
            except FileNotFoundError:  # filed meanwhile
                continue
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                self._problems.append(f"the file {path.name} of the journal cannot be read: {error}")
        return sums

    def _rows(self) -> tuple[str, dict[str, int]]:
        """Copy the database, and then the files that its inspections need."""
        target = Database(f"sqlite:///{self._staging / DATABASE}")
        try:
            target.upgrade()
            map_sums.make(target)
            lost.make(target)
            rows = copy_rows(self._database, target)
            with map_sums.known_to(self._folder) as known:
                self._files(target, known)
            if self._unnamed:
                self._problems.append(
                    f"and likewise of more inspections, {self._unnamed:,} in number: the table "
                    f"{lost.LOST.name} of the snapshot's {DATABASE} has the ids of all"
                )
            _fold(target)
        finally:
            target.close()
        self._copied += (self._staging / DATABASE).stat().st_size
        return str(self._database.revision), rows

    def _files(self, target: Database, known: map_sums.Known) -> None:
        wanted = select(_COLUMNS.id, _COLUMNS.image_sha256, _COLUMNS.image_bytes, _COLUMNS.map_bytes).where(
            _COLUMNS.has_pictures
        )
        after = ""
        while True:
            with target.read() as connection:
                page = wanted.where(_COLUMNS.id > after).order_by(_COLUMNS.id).limit(_ROWS)
                rows = connection.execute(page).all()
            if not rows:
                return
            missing: list[str] = []
            sums: dict[str, str] = {}
            for row in rows:
                try:
                    sha256 = self._files_of(row.id, row.image_sha256, (row.image_bytes, row.map_bytes), known)
                except (FileNotFoundError, FileError):
                    missing.append(row.id)
                    continue
                if sha256 is not None:
                    sums[row.id] = sha256
            map_sums.add(target, sums)
            self._tell_missing(target, missing)
            after = rows[-1].id

    def _files_of(
        self, identifier: str, image_sha256: str, sizes: tuple[int, int], known: map_sums.Known
    ) -> str | None:
        """Copy an inspection's files, of these bytes; the map's sha256.

        Raises:
            FileNotFoundError, FileError: one of them is missing, cut off, or cannot be read.
        """
        source, target = Pictures(self._settings.history.absolute()), self._folder.pictures
        image_bytes, map_bytes = sizes
        image = source.picture_path(image_sha256)
        self._copied += _copy_sound(image, target.picture_path(image_sha256), image_bytes)
        copied = _copy_sound(source.map_path(identifier), target.map_path(identifier), map_bytes)
        self._copied += copied
        if not copied:
            if (sha256 := known(identifier)) is not None:
                return sha256
            # Copied by an earlier version, or for a snapshot that came to nothing. What is no map by now gets
            # no sha256, so that it is found.
            if target.score_map(identifier) is None:
                return None
        return sha256_of(target.map_path(identifier), LARGEST)

    def _tell_missing(self, target: Database, missing: list[str]) -> None:
        """Tell the snapshot's database what is missing, and people, where it was not retention."""
        if not missing:
            return
        with target.write() as connection:
            connection.execute(update(inspections).where(_COLUMNS.id.in_(missing)).values(has_pictures=False))
        with self._database.read() as connection:
            there = select(_COLUMNS.id).where(_COLUMNS.id.in_(missing), _COLUMNS.has_pictures)
            gone = connection.scalars(there).all()
        lost.add(target, gone)
        named = gone[: _NAMED - len(self._lost)]
        self._lost += named
        self._unnamed += len(gone) - len(named)
        self._problems += [
            f"the picture or the map of inspection {identifier} is missing or damaged in the history"
            for identifier in named
        ]

    def _models(self) -> tuple[dict[str, CategoryCopy], dict[str, str]]:
        models = self._settings.models.absolute()
        copies = {}
        for category in models_folder.categories(models):
            # Pointers before versions: the one that is active then is there.
            active = _text(models / category / models_folder.ACTIVE)
            settings = _text(models / category / SETTINGS)
            versions = {}
            for name in models_folder.versions(models, category):
                if (sha256 := self._bundle(models / category / name)) is not None:
                    versions[name] = sha256
            calibrations = self._calibrations(models / category, versions)
            copies[category] = CategoryCopy(
                versions=versions, active=active, settings=settings, calibrations=calibrations
            )
        kept = models / models_folder.BACKBONES
        files = [*sorted(kept.glob("*.safetensors")), *sorted(kept.glob(f"*.safetensors{NAMED}"))]
        backbones = {path.name: sha256 for path in files if (sha256 := self._weights(path)) is not None}
        return copies, backbones

    def _weights(self, path: Path) -> str | None:
        """Copy a file of weights, or what a link leads to; its sha256, None if it cannot be copied."""
        target = self._folder.backbones / path.name
        try:
            source = path.resolve(strict=True)
            sha256 = sha256_of(source, LARGEST)
            # A kept file that was damaged is written anew, as large as before.
            if sha256_or_none(target) != sha256:
                target.unlink(missing_ok=True)
                self._copied += copy_file(source, target)
        except (OSError, FileError, RuntimeError) as error:  # the last of links in a circle
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise
            # Else a training has found the same weights elsewhere meanwhile.
            if path.is_symlink() or path.exists():
                self._problems.append(f"the weights {path.name} cannot be copied: {error}")
            return None
        return sha256

    def _calibrations(self, category: Path, versions: Iterable[str]) -> dict[str, dict[str, str]]:
        """Copy the calibrations that were made after versions; sha256 by version and name."""
        found: dict[str, dict[str, str]] = {}
        for name in versions:
            for source in sorted(models_folder.renewals_of(category / name).glob("*.json")):
                target = self._staging / models_folder.CALIBRATIONS / category.name / name / source.name
                try:
                    self._copied += _copy_sound(source, target)
                except FileNotFoundError:  # removed meanwhile
                    continue
                except FileError as error:
                    self._problems.append(f"calibration {source.name} of {category.name}/{name}: {error}")
                    continue
                found.setdefault(name, {})[source.name] = sha256_of(target, LARGEST)
        return found

    def _bundle(self, source: Path) -> str | None:
        """Copy a version, whole or not at all; the sha256 of its manifest, None if it cannot be copied."""
        try:
            manifest = bundle.verify(source)
            sha256 = bundle.manifest_sha256(source, manifest)
            target = self._folder.bundles / sha256
            if not target.exists():
                with temporary_directory(self._folder.bundles) as temporary:
                    for name in (bundle.MANIFEST, *manifest.files):
                        self._copied += copy_file(source / name, temporary / name)
                    temporary.rename(target)
        except (bundle.BundleError, FileError, FileNotFoundError) as error:
            if source.exists():  # else it was deleted meanwhile
                self._problems.append(f"model {source.parent.name}/{source.name} is damaged: {error}")
            return None
        return sha256


def _copy_sound(source: Path, target: Path, size: int | None = None) -> int:
    """Copy a file that is as it was written; what is the file's fault is told from what is the backup's.

    Args:
        source: the file.
        target: where its copy goes, which all snapshots may share.
        size: that it was written with, where that is known: what was cut off must take no copy's place.

    Returns:
        As `copy_file`.

    Raises:
        FileNotFoundError: it is missing.
        FileError: it has another size than it was written with, or cannot be read.
        OSError: the disk takes no more.
    """
    try:
        if size is not None and source.stat().st_size != size:
            raise FileError(f"{source} has not the {size} bytes that it was written with")
        return copy_file(source, target)
    except FileNotFoundError:
        raise
    except OSError as error:
        if _is_unreadable(source, error):
            raise FileError(f"{source} cannot be read: {error}") from error
        raise


def _is_unreadable(source: Path, error: OSError) -> bool:
    """Whether a file that could not be copied is at fault, and neither this machine nor where it goes."""
    return error.errno not in (*NO_ROOM, *_NO_MEANS) and sha256_or_none(source) is None


def _name(at_ms: int) -> str:
    moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    return f"{moment:%Y%m%dT%H%M%S}{at_ms % 1000:03}Z"


def _fold(database: Database) -> None:
    """Bring a SQLite database into one file, which is then copied and hashed."""
    database.close()
    connection = database.engine.raw_connection()
    try:
        connection.cursor().execute("PRAGMA journal_mode=DELETE")
    finally:
        connection.close()
    database.close()


def _text(path: Path) -> str | None:
    try:
        return read_file(path, _MAX_TEXT).decode()
    except (FileNotFoundError, FileError, UnicodeDecodeError):
        return None
