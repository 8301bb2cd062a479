"""A backup folder: snapshots, and the files that they share.

    flowgauge-backup                   says that this is one
    snapshots/20261125T101500123Z/     snapshot.json, database.sqlite, journal/, settings of the categories,
                                       calibrations/<category>/<version>/
    pictures/ab/<sha256>  maps/ef/<id>.npy    as in the history; once for all snapshots
    bundles/<sha256 of the manifest>/  versions of models
    backbones/                         weights that they need

Pictures, maps, versions and weights never change, so a snapshot copies those that no earlier one has copied.
A snapshot is written under another name and renamed: it is there whole, or not at all.

Its name is the time when it was begun, by a clock that may be wrong: a dead battery puts it into the year
2000, and a name of the year 2100 would be the newest for good. So snapshots are numbered, and the numbers
order them. Those of versions that did not number come first, by their names.
"""

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Final

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy.exc import SQLAlchemyError

from app.backup import lost
from app.backup.copying import NO_ROOM, copy_whole, sha256_or_none
from app.database.engine import Database, DatabaseError
from app.history import orphans
from app.history.pictures import Pictures
from flows.fastflow.plain_files import (
    FileError,
    read_file,
    replace_file,
    sweep,
    temporary_directory,
)

MARK: Final = "flowgauge-backup"
SNAPSHOT: Final = "snapshot.json"
DATABASE: Final = "database.sqlite"
JOURNAL: Final = "journal"
_FORMAT: Final = 1
_NAME: Final = re.compile(r"[0-9]{8}T[0-9]{9}Z")
# Of snapshot.json. Versions of before wrote 158 bytes into it for each inspection that had lost its files:
# this is enough for 3.4 million of them, and to read it takes three times as much memory.
_MAX_BYTES: Final = 512 * 2**20
# What a file system has in its topmost folder by itself.
_OF_DISKS: Final = frozenset({"lost+found", "System Volume Information", "$RECYCLE.BIN"})


# They become parts of paths.
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


class BackupError(ValueError):
    """A backup cannot be made, found or brought back; the message says why and what to do."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CategoryCopy(_Record):
    """A category of a snapshot.

    Attributes:
        versions: sha256 of each version's manifest, by the version's name.
        active: the text of the file that says which version serves; None where none did.
        settings: the category's settings.json; None where there was none.
        calibrations: of each version, sha256 of the files made after it, by name.
    """

    versions: dict[FileName, Sha256]
    active: str | None
    settings: str | None
    calibrations: dict[FileName, dict[FileName, Sha256]] = {}


class Snapshot(_Record):
    """What snapshot.json says.

    Attributes:
        format: of the backup folder.
        created: when it was begun, ISO 8601 in UTC.
        flowgauge: the version that made it.
        revision: of the database's tables.
        database_sha256: of database.sqlite.
        rows: of each table.
        models: the categories.
        backbones: sha256 of each file of weights, by its name.
        problems: what could not be copied, for people.
        lost: ids of inspections whose picture or map the history had lost; a copy of before may be in the
            backup, and stays for as long as a snapshot says so. The first ones; all are in its database, but
            not in that of versions that named all of them here (app/backup/lost.py).
        unnamed: how many further ones there are, which have one sentence together in `problems`.
        number: counts the snapshots of the folder, from 1; 0 in those of versions that did not count.
        journal: sha256 of each file of the journal, by its name; None in those of versions that recorded
            none, and no sha256 of maps either (app/backup/map_sums.py).
    """

    format: int
    created: str
    flowgauge: str
    revision: str
    database_sha256: Sha256
    rows: dict[str, int]
    models: dict[FileName, CategoryCopy]
    backbones: dict[FileName, Sha256]
    problems: list[str]
    number: int = Field(0, ge=0)
    journal: dict[FileName, Sha256] | None = None
    lost: list[str] = []
    unnamed: int = Field(0, ge=0)

    @property
    def missing(self) -> int:
        """How many things could not be copied."""
        return len(self.problems) + max(self.unnamed - 1, 0)


class BackupFolder:
    """A folder of snapshots.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.pictures = Pictures(self.path)
        self.snapshots = self.path / "snapshots"
        self.bundles = self.path / "bundles"
        self.backbones = self.path / "backbones"

    def make(self) -> None:
        """Make the folder, or take one that is a backup already.

        Raises:
            BackupError: it holds something else.
            OSError: it cannot be made.
        """
        mark = self.path / MARK
        if not mark.is_file():
            if self.path.exists() and any(path.name not in _OF_DISKS for path in self.path.iterdir()):
                raise BackupError(f"{self.path} is no backup and not empty: name another folder")
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)  # pictures and hashes of keys
            replace_file(mark, f"{_FORMAT}\n".encode())
        self._expect_format()
        for folder in (self.snapshots, self.bundles, self.backbones):
            folder.mkdir(exist_ok=True)
            sweep(folder)
        self.pictures.open()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder against others that change it.

        Raises:
            BackupError: another one does.
        """
        try:
            with FileLock(self.path / "lock", timeout=0):
                yield
        except Timeout as error:
            raise BackupError(f"another backup, or a restore, is under way in {self.path}") from error

    def names(self) -> list[str]:
        """The snapshots, oldest first, whatever their names say; one that cannot be read has no number.

        Raises:
            BackupError: this is no backup.
        """
        self._expect_format()
        found = (path.name for path in self.snapshots.glob("*"))
        return sorted(filter(_NAME.fullmatch, found), key=lambda name: (self.number(name), name))

    def number(self, name: str) -> int:
        """A snapshot's number; 0 where it has none."""
        try:
            return self.snapshot(name).number
        except BackupError:
            return 0

    def find(self, name: str | None) -> str:
        """A snapshot's name, by default that of the newest.

        Raises:
            BackupError: there is no such snapshot; or none is named, and one cannot be read, so that nobody
                knows which is the newest.
        """
        names = self.names()
        if not names:
            raise BackupError(f"{self.path} has no snapshot")
        if name is not None:
            if name not in names:
                raise BackupError(f"{self.path} has no snapshot {name!r}; it has {', '.join(names)}")
            return name
        good: list[str] = []
        damaged: list[str] = []
        for each, snapshot in self.read_each():
            if isinstance(snapshot, BackupError):
                damaged.append(str(snapshot))
            else:
                good.append(each)
        if damaged:
            choice = (
                f"Name the snapshot that is meant, one of {', '.join(good)}" if good else "There is no other"
            )
            raise BackupError(f"{'; '.join(damaged)}, and may be the newest. {choice}")
        return names[-1]

    def read_each(self) -> Iterator[tuple[str, Snapshot | BackupError]]:
        """The snapshots with their names, oldest first; of one that cannot be read, why.

        One after the other: those that name all of millions of lost inspections are large.

        Raises:
            BackupError: this is no backup.
        """
        for name in self.names():
            try:
                yield name, self.snapshot(name)
            except BackupError as error:
                yield name, error

    def snapshot(self, name: str) -> Snapshot:
        """Read what a snapshot says of itself.

        Raises:
            BackupError: it cannot be read.
        """
        return read_snapshot(self.snapshots / name / SNAPSHOT)

    def database_path(self, name: str) -> Path:
        """A snapshot's database."""
        return self.snapshots / name / DATABASE

    @contextmanager
    def opened(self, name: str) -> Iterator[Database]:
        """A snapshot's database, in a copy that is brought to this version's tables.

        Raises:
            BackupError: it cannot be read.
        """
        with temporary_directory(self.snapshots) as temporary:
            try:
                copy = temporary / DATABASE
                copy_whole(self.database_path(name), copy)
                database = Database(f"sqlite:///{copy}")
                try:
                    database.upgrade()
                    yield database
                finally:
                    database.close()
            except (DatabaseError, SQLAlchemyError, FileNotFoundError) as error:
                raise BackupError(f"the database of snapshot {name} cannot be read: {error}") from error

    def prune(self, keep: int) -> list[str]:
        """Delete all snapshots but the newest, and the files that those neither need nor tell as lost.

        Args:
            keep: how many stay, at least 1.

        Returns:
            The names of those that are gone.

        Raises:
            BackupError: a snapshot cannot be read, so that nobody knows its place; nothing was deleted.
        """
        names = self.names()
        # Without the inspections that some name in millions: there may be a snapshot of every night.
        short: dict[str, list[str]] = {"problems": [], "lost": []}
        snapshots = [self.snapshot(name).model_copy(update=short) for name in names][-keep:]
        gone, kept = names[:-keep], names[-keep:]
        try:
            left = self._not_needed(kept)
        except OSError as error:
            if not gone or error.errno not in NO_ROOM:
                raise
            # No room for a copy of a database: what is to go has some, if what stays is whole.
            for name, snapshot in zip(kept, snapshots, strict=True):
                if sha256_or_none(self.database_path(name)) != snapshot.database_sha256:
                    raise BackupError(
                        f"the database of snapshot {name} is damaged: nothing was deleted"
                    ) from error
            self._remove(gone)
            left = self._not_needed(kept)
        self._remove(gone)
        for files in left:
            files.remove()
        bundles = {sha for s in snapshots for c in s.models.values() for sha in c.versions.values()}
        backbones = {file for s in snapshots for file in s.backbones}
        for folder, needed in ((self.bundles, bundles), (self.backbones, backbones)):
            for path in folder.iterdir():
                # `verify` reads its copies under other names meanwhile; what is left of one killed is swept.
                if path.name not in needed and not path.name.startswith("."):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        return gone

    def _not_needed(self, kept: Sequence[str]) -> list[orphans.Files]:
        """Pictures and maps that none of these snapshots has, nor tells as lost."""
        left: list[orphans.Files] = []
        # One at a time: each is opened in a copy. The newest first, which needs most of the files.
        for name in reversed(kept):
            with self.opened(name) as database:
                there = left or (orphans.Files.of(self.pictures, f"{number:02x}") for number in range(256))
                # Most ids are in the database alone, and in snapshots of before in snapshot.json alone.
                named = orphans.Lost.of(database, self.snapshot(name).lost)
                having = lost.had_files(database)
                left = [files.not_of(database, named, having) for files in there]
        return left

    def _remove(self, names: Sequence[str]) -> None:
        for name in names:
            # Renamed first, so that nobody finds half of it, but into no new folder: it may have no room.
            leaving = self.snapshots / f".{name}.part"
            with suppress(FileNotFoundError):
                (self.snapshots / name).replace(leaving)
                shutil.rmtree(leaving)

    def _expect_format(self) -> None:
        try:
            found = (self.path / MARK).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise BackupError(f"{self.path} is no backup: it has no file {MARK}") from error
        if found != str(_FORMAT):
            raise BackupError(
                f"{self.path} is a backup of format {found[:20]!r}; this version of FlowGauge reads {_FORMAT}"
            )


def read_snapshot(path: Path) -> Snapshot:
    """Read a file snapshot.json.

    Raises:
        BackupError: it cannot be read.
    """
    try:
        return Snapshot.model_validate_json(read_file(path, _MAX_BYTES))
    except (OSError, FileError, ValidationError) as error:
        raise BackupError(f"{path} cannot be read: the snapshot is damaged") from error
