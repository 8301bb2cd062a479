"""Bringing a snapshot back into an empty place.

Files first, rows last: killed on the way, it is done again. As long as the file `restoring` is in a folder
that no server has begun to use, all that it has was copied there, and may be once more.
"""

import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from filelock import Timeout

from app.access import COMMAND_LINE
from app.audit import Audit
from app.backup.carrying import carry, number_of, waiting_in
from app.backup.contents import as_models, calibration, kept_files, replacement, say_replaced
from app.backup.copying import (
    LARGEST,
    NO_ROOM,
    copy_anew,
    copy_file,
    copy_rows,
    is_empty,
    sha256_or_none,
)
from app.backup.folder import JOURNAL, BackupError, BackupFolder, CategoryCopy, Snapshot
from app.category_settings import SETTINGS
from app.database.engine import Database
from app.history.history import folder_lock
from app.history.identity import IDENTITY, forget
from app.history.pictures import Pictures
from app.settings import Settings
from flows.fastflow import bundle, models_folder
from flows.fastflow.plain_files import FileError, replace_file, sha256_of

_BEGUN: Final = "restoring"


@dataclass(frozen=True)
class Restored:
    """What was brought back.

    Attributes:
        name: the snapshot's.
        rows: of each table.
        versions: of models that were not there.
        left_alone: what was there already and is otherwise in the snapshot, a sentence each.
        lacking: what the snapshot or the backup lacks, likewise.
        waiting: bytes that another journal had, and that wait in this one now.
    """

    name: str
    rows: dict[str, int]
    versions: int
    left_alone: list[str]
    lacking: list[str]
    waiting: int


class _Gaps:
    """What a backup has lost of a snapshot: the first ends a restore, or all are left out and said.

    Args:
        name: the snapshot's.
        allowed: whether they are left out.

    Attributes:
        allowed: as given.
        said: a sentence each.
    """

    def __init__(self, name: str, *, allowed: bool) -> None:
        self._name, self.allowed = name, allowed
        self.said: list[str] = []

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        """Within, it is brought back."""
        try:
            yield
        except (OSError, FileError, bundle.BundleError) as error:
            if isinstance(error, OSError) and error.errno in NO_ROOM:  # the place is at fault, not the backup
                raise
            # Of a folder that is copied one of several faults, each with both paths.
            why = "a file of it cannot be read" if isinstance(error, shutil.Error) else str(error)
            if not self.allowed:
                raise BackupError(
                    f"{what} is missing or damaged in snapshot {self._name}, or cannot be read: {why}. "
                    "`flowgauge backup verify` tells all such. Restore another snapshot, or all else of this "
                    "one by --incomplete"
                ) from error
            self.said.append(f"{what} cannot be brought back: {why}")


def restore(
    settings: Settings,
    folder: BackupFolder,
    name: str,
    journal: Path | None = None,
    *,
    incomplete: bool = False,
) -> Restored:
    """Bring a snapshot back. Killed on the way, it can be done again.

    Args:
        settings: of the service, which must not run: history, database and models matter. The history must be
            empty; in the models folder nothing is overwritten.
        folder: the backup.
        name: of the snapshot.
        journal: of the history that was used before, whose inspections wait to be filed and come along.
        incomplete: whether pictures, maps, parts of the journal, versions, weights and calibrations that the
            backup has lost are left out. The database must be whole in any case.

    Raises:
        BackupError: the snapshot is damaged, the place not empty, one of them in use, or the journal none.
        DatabaseError: the database cannot be used.
        FileError: what is named like a file of the journal is none.
        OSError: the disk takes no more.
    """
    history = settings.history.absolute()
    # Held, or the snapshot could be deleted half-way, and could not be restored again.
    with folder.locked():
        snapshot = folder.snapshot(name)
        history.mkdir(parents=True, exist_ok=True)
        try:
            with folder_lock(history).acquire(timeout=0):
                _expect_empty(history)
                with _waiting(journal, history) as waiting:
                    gaps = _Gaps(name, allowed=incomplete)
                    return _restore(settings, folder, name, snapshot, waiting, gaps)
        except Timeout as error:
            raise BackupError(f"a server uses the history {history}: stop it first") from error


def _expect_empty(history: Path) -> None:
    """Raise BackupError where a history has files, of which a restore would replace some and keep others."""
    if _broken_off(history):
        return
    journal = history / JOURNAL
    waits = any(journal.glob("*"))
    if waits or Pictures(history).has_files():
        along = (
            f", with --journal {shlex.quote(str(journal))} for what waits there to be filed" if waits else ""
        )
        raise BackupError(
            f"the history {history} is not empty: it has pictures, maps or a journal. Name a new folder by "
            f"FLOWGAUGE_HISTORY or --history{along}, and let the service use that"
        )


def _broken_off(history: Path) -> bool:
    """Whether a restore has begun there and come to no end, and no server has used the place since."""
    return (history / _BEGUN).exists() and not (history / IDENTITY).exists()


def _waiting(journal: Path | None, history: Path) -> AbstractContextManager[Sequence[Path]]:
    return nullcontext(()) if journal is None else waiting_in(journal, history)


def _restore(
    settings: Settings,
    folder: BackupFolder,
    name: str,
    snapshot: Snapshot,
    waiting: Sequence[Path],
    gaps: _Gaps,
) -> Restored:
    history = settings.history.absolute()
    if sha256_or_none(folder.database_path(name)) != snapshot.database_sha256:
        raise BackupError(f"the database of snapshot {name} is damaged; `flowgauge backup verify` tells more")
    target = Database(settings.database_url)
    try:
        target.upgrade()
        if not is_empty(target):
            killed = (
                f". If this restore was killed at its very end, all is there: delete {history / _BEGUN} and "
                "start the server"
                if _broken_off(history)
                else ""
            )
            raise BackupError(
                f"the database of the history {history} is not empty; restore into a new "
                f"folder, or a new database, and let the service use that{killed}"
            )
        replace_file(history / _BEGUN, name.encode())
        # Of one that was broken off, perhaps of another snapshot or with another journal: it would be filed.
        for left in (history / JOURNAL).glob("*"):
            left.unlink()
        # A service that was started here on trial has marked the place as a whole history. Until it is one,
        # none may start on it, and take files for superfluous whose rows have not come yet.
        forget(history, target)
        pictures = Pictures(history)
        pictures.open()
        brought: set[str] = set()  # pictures, of which several inspections may have one
        for kept in kept_files(folder, name):
            sha256 = kept.picture_sha256
            with gaps.of(f"the picture of inspection {kept.id}"):
                if sha256 not in brought:
                    picture = _as_copied(folder.pictures.picture_path(sha256), sha256)
                    copy_anew(picture, pictures.picture_path(sha256))
                    brought.add(sha256)
            with gaps.of(f"the map of inspection {kept.id}"):
                score_map = _as_copied(folder.pictures.map_path(kept.id), kept.map_sha256, kept.map_bytes)
                copy_anew(score_map, pictures.map_path(kept.id))
        journal = _journal(folder, name, snapshot)
        for path, recorded in journal.items():
            with gaps.of(f"{path.name}, a part of the journal,"):
                copy_anew(path, history / JOURNAL / path.name)
                try:
                    _as_copied(path, recorded)
                except FileError as error:
                    if not gaps.allowed:
                        raise
                    raise FileError(f"{error}; what a server can read of it is filed") from error
        carried = carry(waiting, history / JOURNAL, max(map(number_of, journal), default=0))
        versions, left_alone, lacking = _restore_models(
            settings.models.absolute(), folder, snapshot, name, gaps
        )
        # The rows last, in one transaction: until then it can all be done again.
        with folder.opened(name) as source:
            rows = copy_rows(source, target)
        (history / _BEGUN).unlink()
        Audit(target).write(COMMAND_LINE, "backup.restore", name, "done", rows)
    finally:
        target.close()
    lacking = [*snapshot.problems, *gaps.said, *lacking]
    return Restored(name, rows, versions, left_alone, lacking, carried)


def _journal(folder: BackupFolder, name: str, snapshot: Snapshot) -> dict[Path, str | None]:
    """The files of the journal that must be there, with their sha256; of a snapshot without, all it has."""
    place = folder.snapshots / name / JOURNAL
    if snapshot.journal is None:
        return dict.fromkeys(place.glob("*.journal"))
    return {place / file: sha256 for file, sha256 in snapshot.journal.items()}


def _restore_models(
    models: Path, folder: BackupFolder, snapshot: Snapshot, name: str, gaps: _Gaps
) -> tuple[int, list[str], list[str]]:
    """Bring the models back; how many versions, what was left alone, and what is not in the snapshot."""
    restored, left_alone, lacking = 0, [], []
    for file, sha256 in snapshot.backbones.items():
        source, target = folder.backbones / file, models / models_folder.BACKBONES / file
        with gaps.of(f"the file of weights {file}"):
            if not _brought_back(source, target, sha256):
                left_alone.append(f"the weights {file} are others than the snapshot's")
    for category, copy in snapshot.models.items():
        (models / category).mkdir(parents=True, exist_ok=True)
        for version, sha256 in copy.versions.items():
            if (models / category / version).exists():
                if sha256_or_none(models / category / version / bundle.MANIFEST) != sha256:
                    left_alone.append(f"version {category}/{version} is another one than the snapshot's")
                continue
            with (
                gaps.of(f"version {category}/{version}"),
                as_models(folder, category, copy, version, models) as staged,
            ):
                manifest = bundle.verify(staged / category / version)
                models_folder.move_into_place(staged / category / version, models, manifest)
                restored += 1
        left_alone += _restore_calibrations(models, folder, name, category, copy, gaps)
        text, replaced = copy.active, replacement(copy, models_folder.versions(models, category))
        if replaced is not None:
            text = replaced[1] or text
        for file, said in ((models_folder.ACTIVE, text), (SETTINGS, copy.settings)):
            path = models / category / file
            if said is not None and not path.exists():
                replace_file(path, said.encode())
            elif said is not None and path.read_bytes() != said.encode():
                left_alone.append(f"the file {file} of {category} says something else than in the snapshot")
                continue
            if file == models_folder.ACTIVE and replaced is not None:
                lacking.append(say_replaced(category, *replaced))
    return restored, left_alone, lacking


def _restore_calibrations(
    models: Path, folder: BackupFolder, name: str, category: str, copy: CategoryCopy, gaps: _Gaps
) -> list[str]:
    """Bring the calibrations of a category's versions back; what was left alone."""
    left_alone = []
    for version, files in copy.calibrations.items():
        for file, sha256 in files.items():
            source = calibration(folder, name, category, version, file)
            target = models / category / models_folder.CALIBRATIONS / version / file
            what = f"calibration {file} of {category}/{version}"
            with gaps.of(what):
                if not _brought_back(source, target, sha256):
                    left_alone.append(f"{what} is another one than the snapshot's")
    return left_alone


def _brought_back(source: Path, target: Path, sha256: str) -> bool:
    """Copy a file of the backup to where there is none; whether what is there is the snapshot's.

    Raises:
        FileError, OSError: the backup has lost it, or the disk takes no more.
    """
    if target.exists():
        return sha256_or_none(target.resolve()) == sha256
    copy_file(_as_copied(source, sha256), target)
    return True


def _as_copied(source: Path, sha256: str | None, size: int | None = None) -> Path:
    """A file of the backup that is as it was copied.

    Args:
        source: the file.
        sha256: that it had then; of snapshots of earlier versions not all were recorded.
        size: that it had, where it is known.

    Raises:
        FileError, OSError: it is not, or cannot be read.
    """
    is_cut = size is not None and source.stat().st_size != size
    if is_cut or (sha256 is not None and sha256_of(source, LARGEST) != sha256):
        raise FileError(f"{source} is not as it was copied")
    return source
