"""Pictures that are about to be moved, taken out of the camera's reach first.

While a picture is inspected, the camera may write another one under the same name. A picture that is to be
moved is therefore renamed into a folder of the watcher's own before it is read: what comes under its name
from then on is another file.
"""

import contextlib
import os
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Final

from . import outcome
from .folder import OWN, Folder, Found, Stamp, files, printable, why

_TAKEN: Final = "taken"
_HELD_OPEN: Final = 32  # Windows' ERROR_SHARING_VIOLATION


def identity(root: Path, known: str | None = None) -> str:
    """What tells this folder from all others, made the first time that it is watched.

    Cameras of two stations may well write the same names.

    Args:
        root: the watched folder.
        known: what it was until now, if this is the same folder for sure. Where it is gone it is written
            again: with another one, a picture whose answer was lost would be inspected a second time.

    Raises:
        OSError: the folder cannot be written to, or is not there.
    """
    path = root / OWN / "identity"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        outcome.create(path, _content(known))  # another watcher may start at the same moment
    if not (told := _read(path)):  # as a power cut leaves it; without links a fresh one is, too, for a moment
        outcome.replace(path, _content(known))
        told = _read(path)
    return told


def _read(path: Path) -> str:
    # What a damaged disk has made of it need not be UTF-8, and is the same every time all the same.
    return path.read_bytes().decode(errors="backslashreplace").strip()


def _content(known: str | None) -> bytes:
    return (known or uuid.uuid4().hex).encode()


def put_back(root: Path) -> None:
    """Give a folder back what was taken from it to be moved, for a watcher that moves nothing.

    Args:
        root: the watched folder.

    Raises:
        FileExistsError: others have come under some of the names; all stay where they are.
        OSError: some of it cannot be read, so that it would be forgotten; or the folder cannot be written to.
    """
    folder = root / OWN / _TAKEN
    if not folder.is_dir():
        return
    closed: dict[str, OSError] = {}
    there = [path for path, _ in files(folder, closed, {})]
    if closed:
        unread = ", ".join(f"{path}: {why(error)}" for path, error in closed.items())
        raise OSError(printable(f"{unread}; what was taken to be moved cannot go back"))
    names = [path.relative_to(folder) for path in there]
    blocked = [name.as_posix() for name in names if os.path.lexists(root / name)]
    if blocked:
        raise FileExistsError(
            printable(f"{', '.join(blocked)}: taken to be moved before, and others have these names by now; ")
            + "let a watcher with --move-to deal with them first"
        )
    for path, name in zip(there, names, strict=True):
        _make_folders(root, name)
        path.rename(root / name)
        _tidy(path, folder)


def _make_folders(root: Path, name: Path) -> None:
    """Make the folders below a root in which a file is to be, but never the root, whose disk may be away."""
    for folder in list(reversed(name.parents))[1:]:
        (root / folder).mkdir(exist_ok=True)


class Claims:
    """The pictures that were taken and are not dealt with yet, which outlast the process.

    Args:
        root: the watched folder.
        settle: seconds for which a picture must not change.

    Attributes:
        folder: with those that were taken.
    """

    def __init__(self, root: Path, settle: float) -> None:
        self._folder = root / OWN / _TAKEN
        self.open()
        # A file that was open when it was taken may be written to still. All of them were wanted when they
        # were taken, whatever names are looked for now.
        self.folder = Folder(self._folder, ("*",), settle, beside=False)

    def open(self) -> None:
        """Make the folder where there is none: somebody has tidied up, or mounted a share over the root.

        Raises:
            OSError: it cannot be made, or the root is not there.
        """
        self._folder.parent.mkdir(exist_ok=True)  # never the root, whose disk may be away
        self._folder.mkdir(exist_ok=True)

    def before(self, found: Found) -> Path | None:
        """The picture of the same name that was taken before, for which this one must wait; None without."""
        target = self._folder / found.name
        return target if os.path.lexists(target) else None

    def take(self, found: Found) -> Found | None:
        """Take a picture; None where it is gone, or was written to in the last moment.

        Args:
            found: in the watched folder, and none of its name was taken before.

        Raises:
            OSError: it cannot be taken.
        """
        target = self._folder / found.name
        try:
            self.open()
            _make_folders(self._folder, Path(found.name))
            found.path.rename(target)
            taken = replace(found, path=target)
            return taken if Stamp.of(target.stat()) == found.stamp else None
        except FileNotFoundError:
            return None
        except PermissionError as error:
            if getattr(error, "winerror", None) == _HELD_OPEN:  # by who writes it
                return None
            raise

    def tidy(self, found: Found) -> None:
        """Remove the folders that a picture was in, if nothing else is."""
        _tidy(found.path, self._folder)


def _tidy(gone: Path, root: Path) -> None:
    for folder in gone.parents:
        if folder == root:
            return
        with contextlib.suppress(OSError):
            folder.rmdir()
