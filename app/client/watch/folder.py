"""Which pictures of a folder are there and whole.

The folder is looked at again and again instead of being told of changes: of what another machine writes to a
network share, the kernel tells nothing.
"""

import errno
import os
import time
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

PATTERNS: Final = ("*.png", "*.jpg", "*.jpeg", "*.bmp", "*.tif", "*.tiff", "*.webp")
OWN: Final = ".flowgauge"  # what the watcher keeps in the folder
SIDECAR: Final = ".json"
OVERLAY: Final = ".overlay.png"
# What is empty, or cannot be decoded, may be what the camera has only begun to write: it gets so many times
# the usual time.
UNDECODED_TIMES: Final = 10
# What is larger is no picture that a server takes (32 MiB by default), and may not fit into memory.
MOST_BYTES: Final = 2**30


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

    @property
    def is_oversized(self) -> bool:
        """Whether it is too large to be read."""
        return self.stamp.size > MOST_BYTES

    def read(self) -> bytes | None:
        """Its bytes; None where it was written to meanwhile.

        Raises:
            OSError: it cannot be read.
            MemoryError: it does not fit into memory.
        """
        with self.path.open("rb") as file:
            data = file.read(self.stamp.size + 1)  # it may have become far larger
        return data if Stamp.of(self.path.stat()) == self.stamp and len(data) == self.stamp.size else None


@dataclass(frozen=True)
class _Link:
    """What a symbolic link leads to.

    Attributes:
        stamp: of the link itself.
        is_folder: whether that is a folder.
        inside: whether that is looked at, or will be when it comes, under its own name.
    """

    stamp: Stamp
    is_folder: bool
    inside: bool


def printable(text: str) -> str:
    """A text whose names need not be UTF-8, as on Linux: bytes that are none are written out."""
    return text.encode(errors="backslashreplace").decode()


class Folder:
    """Looks for pictures in a folder and those below it; names that begin with a dot are passed over.

    Args:
        root: the folder.
        patterns: of names, in any case.
        settle: seconds for which a file must not change before it counts as whole; of an empty one ten times
            as many.
        clock: seconds from any beginning.
        beside: whether outcomes are written beside the pictures. Those that were are passed over in any case.

    Attributes:
        closed: of the last look, what below the root could not be read, and why.
        links: symbolic links to folders, and those that have names of pictures, but for those to what is
            looked at anyway. They are passed over: what is read through one may lie anywhere, and when it is
            moved the picture stays.
    """

    def __init__(
        self,
        root: Path,
        patterns: Sequence[str],
        settle: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        beside: bool = True,
    ) -> None:
        self._root = root
        self._patterns = [pattern.lower() for pattern in patterns]
        self._settle = settle
        self._clock = clock
        self._beside = beside
        self.closed: dict[str, OSError] = {}
        self.links: dict[str, OSError] = {}
        self._since: dict[str, tuple[Stamp, float]] = {}
        self._followed: dict[Path, _Link] = {}

    def look(self) -> tuple[list[Found], int]:
        """The whole pictures, the oldest first, and how many are not whole yet.

        Raises:
            OSError: the folder cannot be read; what is below it is passed over, see `closed`.
        """
        now = self._clock()
        before, self._since = self._since, {}
        found, unsettled = [], 0
        self.closed = {}
        links: dict[Path, Stamp] = {}
        there = dict(files(self._root, self.closed, links))
        self._followed = {path: self._follow(path, stamp) for path, stamp in links.items()}
        meant = (path for path, link in self._followed.items() if self._may_be_meant(path, link, there))
        self.links = {str(path): _link() for path in meant}
        for path, status in there.items():
            name = path.relative_to(self._root).as_posix()
            if not self._matches(path.name) or self._is_outcome(path, there):
                continue
            stamp = Stamp.of(status)
            seen, since = before.get(name, (stamp, now))
            since = since if seen == stamp else now
            self._since[name] = stamp, since
            if now - since >= (self._settle if stamp.size else UNDECODED_TIMES * self._settle):
                found.append(Found(name, path, stamp, now - since))
            else:
                unsettled += 1
        found.sort(key=lambda one: (one.stamp.modified_ns, one.name))
        return found, unsettled

    def _follow(self, path: Path, stamp: Stamp) -> _Link:
        """Where a link leads, asked once as long as it is the same: a share that is away may not answer."""
        known = self._followed.get(path)
        if known is not None and known.stamp == stamp:
            return known
        target = Path(os.path.realpath(path))
        is_folder = os.path.isdir(target)  # noqa: PTH112  (Path's own may raise)
        root = Path(os.path.realpath(self._root))
        inside = (
            target.is_relative_to(root)
            and not any(part.startswith(".") for part in target.relative_to(root).parts)
            and (is_folder or self._matches(target.name))
        )
        return _Link(stamp, is_folder, inside)

    def _may_be_meant(self, path: Path, link: _Link, there: Container[Path]) -> bool:
        if link.inside:
            return False
        return link.is_folder or (self._matches(path.name) and not self._is_outcome(path, there))

    def _matches(self, name: str) -> bool:
        return any(fnmatch(name.lower(), pattern) for pattern in self._patterns)

    def _is_outcome(self, path: Path, there: Container[Path]) -> bool:
        """Whether a file is one that we write beside a picture."""
        if path.name.endswith(SIDECAR):
            return self._beside
        if not path.name.endswith(OVERLAY):
            return False
        picture = path.with_name(path.name.removesuffix(OVERLAY))
        # The picture may have been removed before its overlay; a camera's own overlays have no JSON of ours.
        sidecar = picture.with_name(picture.name + SIDECAR)
        ours = sidecar in there or (self._beside and picture in there)
        return self._matches(picture.name) and ours


def why(error: OSError) -> str:
    """What an error of the system says, without the file."""
    return error.strerror or type(error).__name__


def _link() -> OSError:
    return OSError(errno.ELOOP, "a symbolic link, which is not followed")


def files(
    folder: Path, closed: dict[str, OSError], links: dict[Path, Stamp]
) -> Iterator[tuple[Path, os.stat_result]]:
    """The files of a folder and of those below it; names that begin with a dot are passed over.

    Args:
        folder: to look in.
        closed: takes up the paths below it that cannot be read, and why. One such holds up no other.
        links: takes up the symbolic links, which are passed over.

    Raises:
        OSError: the folder itself cannot be read.
    """
    with os.scandir(folder) as listing:
        entries = list(listing)  # it may break off, and what is told from a part of it is wrong
    for entry in entries:
        if entry.name.startswith("."):
            continue
        path = Path(entry.path)
        try:
            if entry.is_symlink():
                links[path] = Stamp.of(path.lstat())
            elif entry.is_dir(follow_symlinks=False):
                yield from files(path, closed, links)
            elif entry.is_file(follow_symlinks=False):
                yield path, path.lstat()  # on Windows the entry's own has no inode
        except FileNotFoundError:  # gone since it was listed
            continue
        except OSError as error:  # lost+found, or a share that is away
            closed[entry.path] = error
