"""What becomes of an image: a JSON file beside it, perhaps an overlay, and where the image goes.

Files appear whole or not at all, and the image is moved last: one that is where it was has not been dealt
with yet, so whoever finds it does all of it again, with the same outcome.
"""

import contextlib
import errno
import json
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ...schemas.predict import Inspection
from ...schemas.problem import ProblemDetails
from .folder import OVERLAY, SIDECAR, Found, printable

FAILED: Final = "failed"


@dataclass(frozen=True)
class Outcome:
    """What was said of an image: an inspection, or the problem for which it is set aside.

    Attributes:
        file: the image.
        sha256: of its bytes.
        result: what the server said.
        overlay: a PNG.
    """

    file: Found
    sha256: str
    result: Inspection | ProblemDetails
    overlay: bytes | None = None

    def write_beside(self, image: Path) -> None:
        """Write beside where the image is, or is to be.

        Raises:
            OSError: nothing is lost; it can be done again.
        """
        if self.overlay is not None:
            _write(image.with_name(image.name + OVERLAY), self.overlay)
        _write(_sidecar(image), self._json())

    def move(self, folder: Path) -> Path:
        """Write into a folder and move the image there, bad ones into its folder `failed`.

        Args:
            folder: may be on another disk. A name that is taken there by another image gets the start of the
                image's sha256.

        Returns:
            Where the image is.

        Raises:
            OSError: nothing is lost; it can be done again.
        """
        target = (folder if isinstance(self.result, Inspection) else folder / FAILED) / self.file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not self._reserve(target):
            target = target.with_name(f"{target.stem}-{self.sha256[:12]}{target.suffix}")
            if not self._reserve(target):
                raise FileExistsError(errno.EEXIST, "another file has this name", str(target))
        self.write_beside(target)
        _move(self.file.path, target)
        return target

    def _reserve(self, target: Path) -> bool:
        """Take a name by its JSON, which one watcher alone can make; False where another image has it."""
        entry = file_entry(target) or {}
        if (entry.get("name"), entry.get("sha256")) == (printable(self.file.name), self.sha256):
            return True  # a process was killed after it had made it
        return not os.path.lexists(target) and _write(_sidecar(target), self._json(), new=True)

    def _json(self) -> bytes:
        stamp, name = self.file.stamp, printable(self.file.name)
        kind = "inspection" if isinstance(self.result, Inspection) else "problem"
        told = {
            "file": {
                "name": name,
                "bytes": stamp.size,
                "modified_ns": stamp.modified_ns,
                "sha256": self.sha256,
            },
            kind: self.result.model_dump(mode="json", exclude={"inline"}),
        }
        return (json.dumps(told, indent=1) + "\n").encode()


def file_entry(image: Path) -> dict[str, Any] | None:
    """Read what the JSON beside an image says of it: empty if the JSON is no watcher's, a camera's say.

    None if it is missing, or damaged, as a watcher's may be after a power cut.

    Raises:
        OSError: it cannot be read.
    """
    try:
        told = json.loads(_sidecar(image).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    entry = told.get("file") if isinstance(told, dict) else None
    return entry if isinstance(entry, dict) and "sha256" in entry else {}


def _sidecar(image: Path) -> Path:
    return image.with_name(image.name + SIDECAR)


def _temporary(path: Path) -> Path:
    """A name beside a file that nobody else has, on another machine neither."""
    return path.with_name(f".{uuid.uuid4().hex}.part")


def _write(path: Path, content: bytes, *, new: bool = False) -> bool:
    """Write a file that appears whole, or not at all. Returns False where a new one's name is taken."""
    temporary = _temporary(path)
    try:
        temporary.write_bytes(content)
        if new and not _claim(path, temporary):
            return False
        temporary.replace(path)
        return True
    finally:
        temporary.unlink(missing_ok=True)


def _claim(path: Path, content: Path) -> bool:
    """Take a name at once with its content; returns whether it was free."""
    try:
        os.link(content, path)
    except FileExistsError:
        return False
    except OSError:  # FAT and some shares have no links; there it is empty for a moment
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            return False
    return True


def _move(source: Path, target: Path) -> None:
    """Move an image; to another disk, where a power cut does not take it any more."""
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        temporary = _temporary(target)
        try:
            shutil.copyfile(source, temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            with contextlib.suppress(OSError):  # on some shares all files are somebody else's
                shutil.copystat(source, temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        source.unlink()
