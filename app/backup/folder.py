"""A backup folder: file contents by their sha256, and snapshots that list them.

    objects/ab/<sha256>              a file's bytes, once for all snapshots
    snapshots/<name>/manifest        one line per file: its sha256, two spaces, its path
    snapshots/<name>/snapshot.json   metadata of the snapshot, with the manifest's sha256
    lock                             held while a snapshot is created, restored or deleted

A snapshot's folder appears by one rename after its files have reached the disk. An interrupted snapshot never
looks complete.
"""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, NamedTuple

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from app.settings import Settings
from flows.fastflow.files.atomic_files import remove_directory
from flows.fastflow.files.plain_files import FileError, file_hashes

MANIFEST: Final = "manifest"
SNAPSHOT: Final = "snapshot.json"
_NAME: Final = re.compile(r"[0-9]{8}T[0-9]{9}Z")


class BackupError(ValueError):
    """A snapshot cannot be created, read or restored; the message says why and what to do."""


def require_own_files(settings: Settings) -> None:
    """Raise BackupError if images, maps and models are in a store."""
    if settings.store is not None:
        raise BackupError(
            "images, maps and models are in FLOWGAUGE_STORE, which no snapshot holds: copy the database "
            "first, with pg_dump, and then the store, with its own tools"
        )


class Snapshot(BaseModel):
    """Metadata of a snapshot.

    Attributes:
        created: ISO 8601, UTC.
        flowgauge: version of FlowGauge that created it.
        database: kind of the database; a restore needs the same kind.
        models: categories with their versions.
        manifest_sha256: of the file `manifest`.
    """

    format: Literal[1]
    created: str
    flowgauge: str
    database: Literal["sqlite", "postgresql"]
    inspections: int
    models: dict[str, list[str]]
    manifest_sha256: str


class ManifestLine(NamedTuple):
    """A file of a snapshot: the sha256 of its bytes, and its path."""

    sha256: str
    path: str


class BackupFolder:
    """Snapshots and the objects that they share."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.snapshots = self.path / "snapshots"
        self._objects = self.path / "objects"

    def create(self) -> None:
        """Create the folder if it is missing, accessible only to its user.

        Raises:
            BackupError: it holds something else.
        """
        if not self.snapshots.is_dir():
            if self.path.is_dir() and any(self.path.iterdir()):
                raise BackupError(f"{self.path} is not empty and is no backup: choose another folder")
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self._objects, self.snapshots):
            folder.mkdir(mode=0o700, exist_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder against other processes, or raise BackupError."""
        self._require_backup()
        try:
            with FileLock(self.path / "lock", timeout=0):
                yield
        except Timeout as error:
            raise BackupError(
                f"another process uses the backup {self.path}: try again when it has finished"
            ) from error

    def names(self) -> list[str]:
        """List the names of the snapshots, the oldest first."""
        self._require_backup()
        return sorted(path.name for path in self.snapshots.iterdir() if _NAME.fullmatch(path.name))

    def find(self, name: str | None) -> str:
        """Return the name of an existing snapshot, by default the newest.

        Raises:
            BackupError: there is no such snapshot.
        """
        names = self.names()
        if name is None and names:
            return names[-1]
        if name in names:
            return name
        raise BackupError(f"{self.path} has no snapshot {name or ''}; it has {', '.join(names) or 'none'}")

    def snapshot(self, name: str) -> Snapshot:
        """Read the metadata of a snapshot, or raise BackupError."""
        path = self.snapshots / name / SNAPSHOT
        try:
            return Snapshot.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise BackupError(
                f"{path} cannot be read: the snapshot is damaged, or comes from another version of FlowGauge"
            ) from error

    def lines(self, name: str) -> Iterator[ManifestLine]:
        """Yield the files of a snapshot in the manifest's order, or raise BackupError."""
        path = self.snapshots / name / MANIFEST
        if _sha256(path) != self.snapshot(name).manifest_sha256:
            raise BackupError(f"{path} was changed: the snapshot is damaged")
        with path.open(encoding="utf-8", newline="\n") as text:
            for line in text:
                sha256, _, file = line.rstrip("\n").partition("  ")
                if ".." in file.split("/") or "//" in file:
                    raise BackupError(f"{path} names {file!r}, which is no valid path of a snapshot")
                yield ManifestLine(sha256, file)

    def verify(self, name: str) -> list[str]:
        """Read every file of a snapshot and compare it with its sha256.

        Returns:
            One sentence for each missing or damaged file.

        Raises:
            BackupError: the snapshot itself cannot be read.
        """
        return [
            f"{path} is missing or damaged: {self.object_path(sha256)}"
            for sha256, path in self.lines(name)
            if _sha256(self.object_path(sha256)) != sha256
        ]

    def object_path(self, sha256: str) -> Path:
        """Return the path of the object with a sha256, whether or not it exists."""
        return self._objects / sha256[:2] / sha256

    def add(self, source: Path) -> tuple[str, int]:
        """Copy a file to the objects; the folder must be locked.

        Returns:
            The file's sha256, and the bytes that the backup did not have before.

        Raises:
            OSError: the file is missing or unreadable, or the backup's disk is full.
        """
        part = self.path / "part"
        shutil.copyfile(source, part)
        [sha256] = file_hashes([part])
        target = self.object_path(sha256)
        added = 0 if target.exists() else part.stat().st_size
        target.parent.mkdir(mode=0o700, exist_ok=True)
        part.replace(target)
        return sha256, added

    def extract(self, line: ManifestLine, target: Path) -> None:
        """Copy a file of a snapshot to a target path.

        Raises:
            BackupError: it is missing or damaged.
            OSError: the disk is full.
        """
        source = self.object_path(line.sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.exists():
            shutil.copyfile(source, target)
        if _sha256(target) != line.sha256:
            raise BackupError(
                f"{line.path} is missing or damaged in the backup: {source}. Restore another snapshot; "
                "`flowgauge backup verify` lists all damaged files"
            )

    def prune(self, keep: int, new: str) -> list[str]:
        """Delete all but the newest snapshots, then the objects that no remaining snapshot needs.

        Args:
            new: a snapshot to keep even if a wrong clock makes it look old.

        Raises:
            BackupError: a snapshot to keep cannot be read; nothing is deleted.
        """
        names = self.names()
        deleted = [name for name in names[:-keep] if name != new]
        kept = set(names).difference(deleted)
        needed = {bytes.fromhex(line.sha256) for name in kept for line in self.lines(name)}
        for name in deleted:
            remove_directory(self.snapshots / name)
        for path in self._objects.glob("*/*"):
            if bytes.fromhex(path.name) not in needed:
                path.unlink()
        return deleted

    def _require_backup(self) -> None:
        if not self.snapshots.is_dir():
            raise BackupError(f"{self.path} is no backup; `flowgauge backup create` makes one")


def _sha256(path: Path) -> str | None:
    """Return the sha256 of a file; None if it cannot be read."""
    try:
        return file_hashes([path])[0]
    except FileError:
        return None
