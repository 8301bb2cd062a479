"""Search of a folder for complete images.

The folder is polled: the kernel sends no notifications of what another machine writes to a network share.
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
# A file that is empty or cannot be decoded may be incomplete: it gets this many times the usual time.
UNDECODED_TIMES: Final = 10


class Stamp(NamedTuple):
    """State of a file that changes when it is written to."""

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
class CompleteFile:
    """A file that has not changed for a while.

    Attributes:
        name: below the root, with slashes.
        quiet: seconds since it was seen to change.
    """

    name: str
    path: Path
    stamp: Stamp
    quiet: float

    def read(self) -> bytes | None:
        """Return its bytes; None if it was written to meanwhile.

        Raises:
            OSError: it cannot be read.
        """
        data = self.path.read_bytes()
        return data if len(data) == self.stamp.size and Stamp.of(self.path) == self.stamp else None


def printable(text: str) -> str:
    """Return a text with bytes that are not UTF-8 as escapes; Linux allows them in names."""
    return text.encode(errors="backslashreplace").decode()


class Folder:
    """Search for images in a folder and its subfolders.

    Names that begin with a dot, symbolic links, a disk's lost+found and the watcher's own files are skipped.

    Args:
        patterns: of names, in any case; None for all files.
        settle: seconds without a change after which a file is complete; ten times as many if it is empty.

    Attributes:
        closed: subfolders that could not be read in the last look, with their errors.
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

    def look(self) -> tuple[list[CompleteFile], int]:
        """Return the complete images, oldest first, and the number of incomplete ones.

        Raises:
            OSError: the folder cannot be read. Unreadable subfolders are skipped, see `closed`.
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
                found.append(CompleteFile(name, path, stamp, now - since))
            else:
                unsettled += 1
        found.sort(key=lambda one: (one.stamp.modified_ns, one.name))
        return found, unsettled

    def _files(self, folder: Path) -> Iterator[tuple[Path, Stamp]]:
        with os.scandir(folder) as listing:
            entries = list(listing)  # at once: a listing that breaks off must not count
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "lost+found":
                continue
            path = Path(entry.path)
            try:
                if entry.is_dir(follow_symlinks=False):
                    yield from self._files(path)
                elif entry.is_file(follow_symlinks=False) and self._is_wanted(entry.name):
                    yield path, Stamp.of(path)  # on Windows the entry's own stat has no inode
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
