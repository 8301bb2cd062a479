"""Which images of a folder are there and whole.

The folder is looked at again and again instead of being told of changes: of what another machine writes to a
network share, the kernel tells nothing.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Final, NamedTuple

PATTERNS: Final = ("*.png", "*.jpg", "*.jpeg", "*.bmp", "*.tif", "*.tiff", "*.webp")
SIDECAR: Final = ".json"
OVERLAY: Final = ".overlay.png"
# What is empty, or cannot be decoded, may be what the camera has only begun to write: it gets so many times
# the usual time.
UNDECODED_TIMES: Final = 10


class Stamp(NamedTuple):
    """What of a file changes when it is written to."""

    size: int
    modified_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> "Stamp":
        """The stamp of a file.

        Raises:
            OSError: it is not there.
        """
        status = path.lstat()
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

    def read(self) -> bytes | None:
        """Its bytes; None where it was written to meanwhile.

        Raises:
            OSError: it cannot be read.
        """
        data = self.path.read_bytes()
        return data if len(data) == self.stamp.size and Stamp.of(self.path) == self.stamp else None


def printable(text: str) -> str:
    """A text whose names need not be UTF-8, as on Linux: bytes that are none are written out."""
    return text.encode(errors="backslashreplace").decode()


class Folder:
    """Looks for images in a folder and those below it.

    Names that begin with a dot are passed over, and so are symbolic links, a disk's lost+found, and what the
    watcher writes beside images.

    Args:
        root: the folder.
        patterns: of names, in any case; None for all files.
        settle: seconds for which a file must not change before it counts as whole; of an empty one ten times
            as many.
        clock: seconds from any beginning.

    Attributes:
        closed: folders below the root that could not be read in the last look, and why.
    """

    def __init__(
        self,
        root: Path,
        patterns: Sequence[str] | None,
        settle: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root
        self._patterns = patterns and [pattern.lower() for pattern in patterns]
        self._settle = settle
        self._clock = clock
        self._since: dict[str, tuple[Stamp, float]] = {}
        self.closed: dict[str, OSError] = {}

    def look(self) -> tuple[list[Found], int]:
        """The whole images, the oldest first, and how many are not whole yet.

        Raises:
            OSError: the folder cannot be read; what is below it is passed over, see `closed`.
        """
        now = self._clock()
        before, self._since, self.closed = self._since, {}, {}
        found, unsettled = [], 0
        for path, stamp in self._files(self._root):
            name = path.relative_to(self._root).as_posix()
            seen, since = before.get(name, (stamp, now))
            since = since if seen == stamp else now
            self._since[name] = stamp, since
            if now - since >= (self._settle if stamp.size else UNDECODED_TIMES * self._settle):
                found.append(Found(name, path, stamp, now - since))
            else:
                unsettled += 1
        found.sort(key=lambda one: (one.stamp.modified_ns, one.name))
        return found, unsettled

    def _files(self, folder: Path) -> Iterator[tuple[Path, Stamp]]:
        with os.scandir(folder) as listing:
            entries = list(listing)  # it may break off, and what is told from a part of it is wrong
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "lost+found":
                continue
            path = Path(entry.path)
            try:
                if entry.is_dir(follow_symlinks=False):
                    yield from self._files(path)
                elif entry.is_file(follow_symlinks=False) and self._is_wanted(entry.name):
                    yield path, Stamp.of(path)  # on Windows the entry's own has no inode
            except FileNotFoundError:  # gone since it was listed
                continue
            except OSError as error:  # a share that is away, say
                self.closed[entry.path] = error

    def _is_wanted(self, name: str) -> bool:
        if self._patterns is None:
            return True
        if name.endswith(SIDECAR) or (name.endswith(OVERLAY) and self._matches(name.removesuffix(OVERLAY))):
            return False
        return self._matches(name)

    def _matches(self, name: str) -> bool:
        return any(fnmatch(name.lower(), pattern) for pattern in self._patterns or ())
