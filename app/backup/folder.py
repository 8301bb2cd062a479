"""A backup folder: file contents by their sha256, and snapshots that list them.

    objects/ab/<sha256>              a file's bytes, once for all snapshots
    snapshots/<name>/manifest        a line a file: its sha256, two spaces, its path
    snapshots/<name>/snapshot.json   what the snapshot is of, with the manifest's sha256
    lock                             held while a snapshot is taken, restored or deleted

A snapshot's folder appears by one rename after everything in it has reached the disk, so a snapshot that was
broken off is never taken for a whole one.
"""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, NamedTuple

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from flows.fastflow.files.atomic_files import remove_directory
from flows.fastflow.files.plain_files import FileError, file_hashes

MANIFEST: Final = "manifest"
SNAPSHOT: Final = "snapshot.json"
_NAME: Final = re.compile(r"[0-9]{8}T[0-9]{9}Z")


class BackupError(ValueError):
    """A snapshot cannot be taken, read or restored; the message says why and what to do."""


class Snapshot(BaseModel):
    """What a snapshot is of.

    Attributes:
        format: 1.
        created: ISO 8601, UTC.
        flowgauge: the version that took it.
        database: the kind of database it was taken of, and can be restored into.
        inspections: how many the database had.
        models: categories with their versions.
        manifest_sha256: of the file beside this one.
    """

    format: Literal[1]
    created: str
    flowgauge: str
    database: Literal["sqlite", "postgresql"]
    inspections: int
    models: dict[str, list[str]]
    manifest_sha256: str


class Line(NamedTuple):
    """A file of a snapshot: the sha256 of its bytes, and its path."""

    sha256: str
    path: str


class BackupFolder:
    """Snapshots and the objects that they share.

    Args:
        path: of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.snapshots = self.path / "snapshots"
        self._objects = self.path / "objects"

    def create(self) -> None:
        """Make the folder, for its user alone, unless it is there.

        Raises:
            BackupError: it holds something else.
        """
        if not self.snapshots.is_dir():
            if self.path.is_dir() and any(self.path.iterdir()):
                raise BackupError(f"{self.path} is no backup and not empty: name another folder")
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self._objects, self.snapshots):
            folder.mkdir(mode=0o700, exist_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from changing the folder.

        Raises:
            BackupError: another process has the lock.
        """
        self._require_backup()
        try:
            with FileLock(self.path / "lock", timeout=0):
                yield
        except Timeout as error:
            raise BackupError(f"another process uses the backup {self.path} at this moment") from error

    def names(self) -> list[str]:
        """Names of the snapshots, the oldest first."""
        self._require_backup()
        return sorted(path.name for path in self.snapshots.iterdir() if _NAME.fullmatch(path.name))

    def find(self, name: str | None) -> str:
        """The name of a snapshot that there is, by default of the newest.

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
        """What a snapshot says of itself.

        Raises:
            BackupError: it cannot be read.
        """
        path = self.snapshots / name / SNAPSHOT
        try:
            return Snapshot.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise BackupError(
                f"{path} cannot be read: the snapshot is damaged, or of another version of FlowGauge"
            ) from error

    def lines(self, name: str) -> Iterator[Line]:
        """The files of a snapshot, in the manifest's order.

        Raises:
            BackupError: the manifest is damaged.
        """
        path = self.snapshots / name / MANIFEST
        if _sha256(path) != self.snapshot(name).manifest_sha256:
            raise BackupError(f"{path} is not as it was written: the snapshot is damaged")
        with path.open(encoding="utf-8", newline="\n") as text:
            for line in text:
                sha256, _, file = line.rstrip("\n").partition("  ")
                if ".." in file.split("/") or "//" in file:
                    raise BackupError(f"{path} names {file!r}, which is no file of a snapshot")
                yield Line(sha256, file)

    def verify(self, name: str) -> list[str]:
        """Read every file of a snapshot and compare it with its sha256.

        Returns:
            What is missing or damaged, a sentence each.

        Raises:
            BackupError: the snapshot itself cannot be read.
        """
        return [
            f"{path} is missing or damaged: {self.object_path(sha256)}"
            for sha256, path in self.lines(name)
            if _sha256(self.object_path(sha256)) != sha256
        ]

    def object_path(self, sha256: str) -> Path:
        """Where the bytes with a sha256 are, or would be."""
        return self._objects / sha256[:2] / sha256

    def add(self, source: Path) -> tuple[str, int]:
        """Copy a file's bytes to the objects; the folder must be locked.

        Returns:
            Their sha256, and how many were not there before.

        Raises:
            OSError: it is not there or cannot be read, or the disk of the backup is full.
        """
        part = self.path / "part"
        shutil.copyfile(source, part)
        [sha256] = file_hashes([part])
        target = self.object_path(sha256)
        added = 0 if target.exists() else part.stat().st_size
        target.parent.mkdir(mode=0o700, exist_ok=True)
        part.replace(target)
        return sha256, added

    def extract(self, line: Line, target: Path) -> None:
        """Copy a file of a snapshot to where it belongs.

        Raises:
            BackupError: it is missing or damaged.
            OSError: the disk takes no more.
        """
        source = self.object_path(line.sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.exists():
            shutil.copyfile(source, target)
        if _sha256(target) != line.sha256:
            raise BackupError(
                f"{line.path} is missing or damaged in the backup: {source}. `flowgauge backup verify` names "
                "all such files. Restore another snapshot"
            )

    def prune(self, keep: int, new: str) -> list[str]:
        """Delete all but the newest snapshots, and then the objects that none of the rest needs.

        Args:
            keep: how many stay.
            new: a snapshot that stays wherever the clock has put it.

        Returns:
            Names of the snapshots that were deleted.

        Raises:
            BackupError: a snapshot that stays cannot be read: nothing is deleted.
        """
        names = self.names()
        gone = [name for name in names[:-keep] if name != new]
        kept = set(names).difference(gone)
        needed = {bytes.fromhex(line.sha256) for name in kept for line in self.lines(name)}
        for name in gone:
            remove_directory(self.snapshots / name)
        for path in self._objects.glob("*/*"):
            if bytes.fromhex(path.name) not in needed:
                path.unlink()
        return gone

    def _require_backup(self) -> None:
        if not self.snapshots.is_dir():
            raise BackupError(f"{self.path} is no backup: `flowgauge backup create` makes one")


def _sha256(path: Path) -> str | None:
    """The sha256 of a file; None where it cannot be read."""
    try:
        return file_hashes([path])[0]
    except FileError:
        return None
