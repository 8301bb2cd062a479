"""A backup folder: file contents by their sha256, and snapshots that list them.

    objects/ab/<sha256>              a file's bytes, once for all snapshots
    snapshots/<name>/manifest        a line a file: its sha256, two spaces, its path
    snapshots/<name>/snapshot.json   what the snapshot is of, with the manifest's sha256
    incoming/                        what is being copied
    lock                             held while a snapshot is taken, restored or deleted

A snapshot's folder appears by one rename after everything in it has reached the disk, so a snapshot that was
broken off is never taken for a whole one.
"""

import hashlib
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final, Literal, NamedTuple

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from flows.fastflow.plain_files import FileError, file_hashes, read_file, require_plain

MANIFEST: Final = "manifest"
SNAPSHOT: Final = "snapshot.json"
_NAME: Final = re.compile(r"[0-9]{8}T[0-9]{9}Z")
_LINE: Final = re.compile(r"([0-9a-f]{64})  (.+)\n")
_MAX_BYTES: Final = 16 * 2**20
_CHUNK: Final = 2**20


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
        missing: the first files that the history itself had lost by then, in words.
        missing_count: how many it had lost.
        manifest_sha256: of the file beside this one.
    """

    format: Literal[1]
    created: str
    flowgauge: str
    database: Literal["sqlite", "postgresql"]
    inspections: int
    models: dict[str, list[str]]
    missing: list[str]
    missing_count: int
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
        self._incoming = self.path / "incoming"

    def create(self) -> None:
        """Make the folder, for its user alone, unless it is there.

        Raises:
            BackupError: it holds something else.
        """
        if not self.snapshots.is_dir():
            if self.path.is_dir() and any(self.path.iterdir()):
                raise BackupError(f"{self.path} is no backup and not empty: name another folder")
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self._objects, self._incoming, self.snapshots):
            folder.mkdir(mode=0o700, exist_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from changing the folder; what a killed one was copying is removed.

        Raises:
            BackupError: another process has the lock.
        """
        self._require_backup()
        try:
            with FileLock(self.path / "lock", timeout=0):
                shutil.rmtree(self._incoming, ignore_errors=True)
                self._incoming.mkdir(mode=0o700, exist_ok=True)
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
            return Snapshot.model_validate_json(read_file(path, _MAX_BYTES))
        except (OSError, FileError, ValidationError) as error:
            raise BackupError(
                f"{path} cannot be read: the snapshot is damaged, or of another version of FlowGauge"
            ) from error

    def lines(self, name: str) -> Iterator[Line]:
        """The files of a snapshot, in the manifest's order.

        Raises:
            BackupError: the manifest is damaged.
        """
        path = self.snapshots / name / MANIFEST
        expected = self.snapshot(name).manifest_sha256
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise BackupError(f"{path} cannot be read: the snapshot is damaged") from error
        if found != expected:
            raise BackupError(f"{path} is not as it was written: the snapshot is damaged")
        with path.open(encoding="utf-8", newline="\n") as text:
            for line in text:
                yield _parse(line, path)

    def verify(self, name: str) -> list[str]:
        """Read every file of a snapshot and compare it with its sha256.

        Returns:
            What is missing or damaged, a sentence each.

        Raises:
            BackupError: the snapshot itself cannot be read.
        """
        faults = []
        for sha256, path in self.lines(name):
            place = self.object_path(sha256)
            try:
                [found] = file_hashes([place])
            except FileError:
                found = ""
            if found != sha256:
                faults.append(f"{path} is missing or damaged: {place}")
        return faults

    def object_path(self, sha256: str) -> Path:
        """Where the bytes with a sha256 are, or would be."""
        return self._objects / sha256[:2] / sha256

    def add(self, source: Path) -> tuple[str, int]:
        """Copy a file's bytes to the objects.

        Returns:
            Their sha256, and how many were not there before.

        Raises:
            FileError: the source is no regular file.
            OSError: it is not there or cannot be read, or the disk of the backup is full.
        """
        part = self._incoming / "part"
        require_plain(source, sys.maxsize)
        with source.open("rb") as file, part.open("wb") as copy:
            sha256, size = copy_hashed(file, copy)
        target = self.object_path(sha256)
        is_new = not target.exists()
        target.parent.mkdir(mode=0o700, exist_ok=True)
        part.replace(target)
        return sha256, size if is_new else 0

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
        gone = [name for name in self.names()[:-keep] if name != new]
        needed = {
            bytes.fromhex(line.sha256)
            for name in self.names()
            if name not in gone
            for line in self.lines(name)
        }
        for name in gone:
            # Renamed first: half of a snapshot must not look like one.
            leaving = self.snapshots / f".{name}.part"
            (self.snapshots / name).rename(leaving)
            shutil.rmtree(leaving)
        for path in self._objects.glob("*/*"):
            if bytes.fromhex(path.name) not in needed:
                path.unlink()
        return gone

    def _require_backup(self) -> None:
        if not self.snapshots.is_dir():
            raise BackupError(f"{self.path} is no backup: `flowgauge backup create` makes one")


def copy_hashed(source: BinaryIO, target: BinaryIO) -> tuple[str, int]:
    """Copy all bytes from one file to another; returns their sha256 and how many they are."""
    sha256, size = hashlib.sha256(), 0
    while chunk := source.read(_CHUNK):
        sha256.update(chunk)
        size += len(chunk)
        target.write(chunk)
    target.flush()
    return sha256.hexdigest(), size


def _parse(line: str, path: Path) -> Line:
    found = _LINE.fullmatch(line)
    if found is None or PurePosixPath(found[2]).is_absolute() or ".." in PurePosixPath(found[2]).parts:
        raise BackupError(f"{path} has a line that no manifest has: {line[:100]!r}")
    return Line(found[1], found[2])
