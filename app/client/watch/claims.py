"""Pictures that are about to be moved, taken out of the camera's reach first.

While a picture is inspected, the camera may write another one under the same name. A picture that is to be
moved is therefore renamed into a folder of the watcher's own before it is read: what comes under its name
from then on is another file.
"""

import contextlib
import uuid
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from . import outcome
from .folder import OWN, Folder, Found, Stamp


def identity(root: Path) -> str:
    """What tells this folder from all others, made the first time that it is watched.

    Cameras of two stations may well write the same names.

    Raises:
        OSError: the folder cannot be written to.
    """
    path = root / OWN / "identity"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        outcome.replace(path, uuid.uuid4().hex.encode())
    return path.read_text().strip()


class Claims:
    """The pictures that were taken and are not dealt with yet, which outlast the process.

    Args:
        root: the watched folder.
        patterns: of names.
        settle: seconds for which a picture must not change.
    """

    def __init__(self, root: Path, patterns: tuple[str, ...], settle: float) -> None:
        self._folder = root / OWN / "taken"
        self._folder.mkdir(parents=True, exist_ok=True)
        # A file that was open when it was taken may be written to still.
        self._look = Folder(self._folder, patterns, settle, beside=False).look

    def take_all(self, found: Iterable[Found]) -> tuple[list[Found], int]:
        """Take pictures, and give them with those that were taken before.

        Args:
            found: in the watched folder.

        Returns:
            What is whole, and how many pictures are not, or must wait for one of the same name before them.

        Raises:
            OSError: the folder cannot be read.
        """
        whole, waiting = self._look()
        for one in found:
            taken = self._take(one)
            if taken is None:
                waiting += 1
            else:
                whole.append(taken)
        return whole, waiting

    def _take(self, found: Found) -> Found | None:
        """Take a picture; None where that must wait, or it was written to in the last moment."""
        target = self._folder / found.name
        if target.exists():
            return None
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            found.path.rename(target)
            taken = replace(found, path=target)
            return taken if Stamp.of(target.stat()) == found.stamp else None
        except OSError:  # gone, or held open by who writes it
            return None

    def tidy(self, found: Found) -> None:
        """Remove the folders that a picture was in, if nothing else is."""
        for folder in found.path.parents:
            if folder == self._folder:
                return
            with contextlib.suppress(OSError):
                folder.rmdir()
