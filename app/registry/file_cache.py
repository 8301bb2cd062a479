"""Cache of parsed files: reread after a change, last good content kept after damage."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

logger = logging.getLogger("flowgauge.files")

T = TypeVar("T")
_Stamp = tuple[int, ...]


class DamagedFileError(ValueError):
    """A file is unreadable, and no earlier content is known."""


class FileCache(Generic[T]):
    """Contents of small files by path. Thread-safe.

    An unreadable file does not count as missing: its last content stays in force, and one error is logged.
    """

    def __init__(self) -> None:
        self._known: dict[Path, tuple[_Stamp, T | None]] = {}
        self._damaged: dict[Path, _Stamp] = {}

    def get(self, path: Path, parse: Callable[[Path], T], root: Path) -> T | None:
        """Return the parsed file, None if it does not exist; an unchanged file costs one stat call.

        Args:
            parse: raises OSError or ValueError if the file is damaged.
            root: a parent folder that must exist, because a lost network share is no missing file.

        Raises:
            DamagedFileError: the file is unreadable from the start.
        """
        known = self._known.get(path)
        stamp: _Stamp = (0,)
        try:
            stamp = _stamp(path, root)
            if known is not None and stamp in (known[0], self._damaged.get(path)):
                return known[1]
            value = parse(path) if stamp else None
        except (OSError, ValueError) as error:
            if self._damaged.get(path) != stamp:
                self._damaged[path] = stamp
                kept = "no earlier content is known" if known is None else "its last content stays in force"
                logger.exception("%s cannot be read; %s", path, kept)
            if known is None:
                raise DamagedFileError(f"{path} cannot be read") from error
            return known[1]
        if known is not None and known[1] is not None and value is None:
            logger.warning("%s is gone", path)
        self._damaged.pop(path, None)
        self._known[path] = stamp, value
        return value


def _stamp(path: Path, root: Path) -> _Stamp:
    """Return numbers that change when a file is replaced; empty if it does not exist."""
    try:
        status = path.stat()
    except FileNotFoundError:
        root.stat()
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
