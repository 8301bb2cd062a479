"""Which pictures of a folder are there and whole.

The folder is looked at again and again instead of being told of changes: of what another machine writes to a
network share, the kernel tells nothing.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

PATTERNS: Final = ("*.png", "*.jpg", "*.jpeg", "*.bmp", "*.tif", "*.tiff", "*.webp")
OWN: Final = ".flowgauge"  # what the watcher keeps in the folder
OVERLAY: Final = ".overlay.png"


@dataclass(frozen=True)
class Stamp:
    """What of a file changes when it is written to."""

    size: int
    modified_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Stamp":
        """The stamp of a file."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)


@dataclass(frozen=True)
class Found:
    """A file that has been let alone for a while.

    Attributes:
        name: below the root, with slashes.
        path: where it lies.
        stamp: as it was seen.
        quiet: seconds since it was seen to change.
    """

    name: str
    path: Path
    stamp: Stamp
    quiet: float


def printable(text: str) -> str:
    """A text whose names need not be UTF-8, as on Linux: bytes that are none are written out."""
    return text.encode(errors="backslashreplace").decode()


class Folder:
    """Looks for pictures in a folder and those below it; names that begin with a dot are passed over.

    Args:
        root: the folder.
        patterns: of names, in any case.
        settle: seconds for which a file must not change before it counts as whole; an empty one never does.
        clock: seconds from any beginning.
    """

    def __init__(
        self,
        root: Path,
        patterns: Sequence[str],
        settle: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root
        self._patterns = [pattern.lower() for pattern in patterns]
        self._settle = settle
        self._clock = clock
        self._since: dict[str, tuple[Stamp, float]] = {}

    def look(self) -> tuple[list[Found], int]:
        """The whole pictures, the oldest first, and how many are not whole yet.

        Raises:
            OSError: the folder cannot be read.
        """
        now = self._clock()
        before, self._since = self._since, {}
        found, unsettled = [], 0
        for path, status in _files(self._root):
            name = path.relative_to(self._root).as_posix()
            if not self._wanted(path.name):
                continue
            stamp = Stamp.of(status)
            seen, since = before.get(name, (stamp, now))
            since = since if seen == stamp else now
            self._since[name] = stamp, since
            if stamp.size and now - since >= self._settle:
                found.append(Found(name, path, stamp, now - since))
            else:
                unsettled += 1
        found.sort(key=lambda one: (one.stamp.modified_ns, one.name))
        return found, unsettled

    def _wanted(self, name: str) -> bool:
        name = name.lower()
        return not name.endswith(OVERLAY) and any(fnmatch(name, pattern) for pattern in self._patterns)


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    yield from _files(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    yield Path(entry.path), entry.stat(follow_symlinks=False)
            except FileNotFoundError:  # gone since it was listed
                continue
