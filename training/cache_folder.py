"""A folder of caches, bounded in bytes: each is whole or not there, and the least recently used goes first.

CacheError
└── DiskSpaceError   the disk has too little room
"""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

GIB = 2**30
_PART = re.compile(r"\..+-(?P<nbytes>\d+)-[^-]+\.part")  # a cache that is being made, and what it will take


class CacheError(ValueError):
    """What should be cached is larger than the cache may be."""


class DiskSpaceError(CacheError):
    """The disk has too little room."""


@dataclass(frozen=True)
class Entry:
    """One cache.

    Attributes:
        path: its folder.
        nbytes: what it takes on disk.
        used: when it was last used, in seconds since 1970.
        in_use: whether a living process holds it.
    """

    path: Path
    nbytes: int
    used: float
    in_use: bool


class CacheFolder:
    """Caches side by side, one sub-folder each.

    Who uses a cache, or makes one, holds a lock on a file within it, which the system releases when the
    process dies. So what nobody holds can be removed: the least recently used cache for want of room, and
    what a killed process left half made.

    Args:
        folder: of the caches; made when the first one is.
        max_bytes: what all of them together may take.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes

    @contextmanager
    def use(self, name: str, nbytes: int, make: Callable[[Path], None]) -> Iterator[Path]:
        """Use a cache, made first where there is none. Meanwhile it is not removed.

        Args:
            name: of the cache; says what is in it.
            nbytes: what it will take.
            make: writes it into an empty folder.

        Raises:
            CacheError: it is larger than all caches may be, or the disk is too full.
        """
        target = self.folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._alone():
            hold = _hold(target) if target.is_dir() else None
            if hold is None:
                self._sweep()
                self._make_room(nbytes)
                # Under a temporary name until complete, so that a killed run leaves no half cache behind.
                temporary = Path(
                    tempfile.mkdtemp(dir=self.folder, prefix=f".{name}-{nbytes}-", suffix=".part")
                )
                making = _hold(temporary)
        if hold is None:
            try:
                make(temporary)
                with self._alone():
                    # Another run may have finished the same work meanwhile: its result is as good.
                    if not target.is_dir():
                        _release(making)
                        temporary.replace(target)
                    hold = _hold(target)
            finally:
                _release(making)
                shutil.rmtree(temporary, ignore_errors=True)
        try:
            yield target
        finally:
            _release(hold)

    def has(self, name: str) -> bool:
        """Whether there is such a cache."""
        return (self.folder / name).is_dir()

    def discard(self, name: str) -> None:
        """Remove a cache, if there is one; on Windows not while somebody reads it."""
        if self.has(name):
            with self._alone(), suppress(FileNotFoundError):  # somebody was faster
                _remove(self.folder / name)

    def entries(self) -> list[Entry]:
        """All caches, the least recently used first."""
        if not self.folder.is_dir():
            return []
        with self._alone():
            return self._entries()

    def prune(self, max_bytes: int) -> list[Entry]:
        """Remove what killed processes left, and least recently used caches until the rest takes no more.

        Returns:
            The caches that were removed. Those in use stay, even where they take more.
        """
        if not self.folder.is_dir():
            return []
        with self._alone():
            self._sweep()
            return self._shrink(lambda total: total <= max_bytes)

    def evictable(self) -> int:
        """Bytes that are given back at most when a new cache needs them."""
        return sum(entry.nbytes for entry in self.entries() if not entry.in_use)

    def _alone(self) -> FileLock:
        # Beside the folder, not in it. Held for moments only: never while a cache is made.
        return FileLock(self.folder.with_name(f"{self.folder.name}.lock"))

    def _entries(self) -> list[Entry]:
        found = [
            Entry(path, _size(path), path.stat().st_mtime, _in_use(path))
            for path in self.folder.iterdir()
            if path.is_dir() and not path.name.startswith(".")
        ]
        return sorted(found, key=lambda entry: (entry.used, entry.path.name))

    def _make_room(self, nbytes: int) -> None:
        if nbytes > self.max_bytes:
            raise CacheError(
                f"the features take {nbytes / GIB:.2f} GiB, and feature_cache.max_gib allows "
                f"{self.max_bytes / GIB:.2f}: raise it in the run's YAML, or take a smaller input_size, "
                "fewer stages or fewer augment.copies"
            )
        others, waiting = self._being_made()
        self._shrink(
            lambda total: total + others + nbytes <= self.max_bytes and self._free() - waiting >= nbytes
        )
        if (free := self._free() - waiting) < nbytes:
            raise DiskSpaceError(
                f"the features take {nbytes / GIB:.2f} GiB, and {self.folder} has {free / GIB:.2f} GiB "
                "left: free some, or let --runs name a folder on a larger disk"
            )

    def _being_made(self) -> tuple[int, int]:
        """Bytes of the caches that others make just now, and how many of them are yet to be written."""
        others = waiting = 0
        for part in self.folder.iterdir():
            if name := _PART.fullmatch(part.name):
                reserved = int(name["nbytes"])
                others += reserved
                with suppress(OSError):  # done or given up meanwhile
                    waiting += max(0, reserved - _size(part))
        return others, waiting

    def _free(self) -> int:
        return shutil.disk_usage(self.folder).free

    def _shrink(self, enough: Callable[[int], bool]) -> list[Entry]:
        entries = self._entries()
        total = sum(entry.nbytes for entry in entries)
        removed = []
        for entry in entries:
            if enough(total):
                break
            if not entry.in_use:
                _remove(entry.path)
                total -= entry.nbytes
                removed.append(entry)
        return removed

    def _sweep(self) -> None:
        for left in self.folder.glob(".*.part"):
            if not _in_use(left):
                shutil.rmtree(left, ignore_errors=True)


def _hold(folder: Path) -> FileLock:
    """A lock of one's own within a cache's folder, whose time of change becomes that of its last use."""
    handle, path = tempfile.mkstemp(dir=folder, suffix=".lock")
    os.close(handle)
    lock = FileLock(path)
    lock.acquire(timeout=0)
    return lock


def _release(lock: FileLock) -> None:
    # First its name, for a lock that nobody holds looks as if it were left by a killed process.
    with suppress(OSError):
        Path(lock.lock_file).unlink()
    lock.release()


def _in_use(folder: Path) -> bool:
    for path in folder.glob("*.lock"):
        try:
            with FileLock(path, timeout=0):
                pass
        except Timeout:
            return True
    return False


def _remove(folder: Path) -> None:
    # Renamed first: a kill in the midst of it must not leave half a cache under a cache's name.
    doomed = folder.with_name(f".{folder.name}-removed.part")
    folder.replace(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.suffix != ".lock")
