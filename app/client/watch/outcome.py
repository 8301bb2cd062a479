"""Results of an image on the disk: a JSON file, an overlay, and the image's new place.

Files appear complete or not at all, and the image is moved last. An image in its old place is not finished:
all steps are then repeated, with the same result.
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
from .folder import OVERLAY, SIDECAR, CompleteFile, printable

FAILED: Final = "failed"


@dataclass(frozen=True)
class ImageOutcome:
    """Result of an image: an inspection, or the problem for which it is set aside."""

    file: CompleteFile
    sha256: str
    result: Inspection | ProblemDetails
    overlay: bytes | None = None

    def write_beside(self, image: Path) -> None:
        """Write the JSON file and the overlay beside a path of the image.

        Raises:
            OSError: nothing is lost; try again.
        """
        if self.overlay is not None:
            _write(image.with_name(image.name + OVERLAY), self.overlay)
        _write(_sidecar(image), self._json())

    def move(self, folder: Path) -> Path:
        """Write the files into a folder, and move the image there or into its folder `failed`.

        Args:
            folder: may be on another disk. If its name is used by another image, the start of the image's
                sha256 is added.

        Raises:
            OSError: nothing is lost; try again.
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
        """Reserve a name by its JSON file, which only one watcher can create; False if it is used."""
        entry = file_entry(target) or {}
        if (entry.get("name"), entry.get("sha256")) == (printable(self.file.name), self.sha256):
            return True  # made before a process was killed
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
    """Read an image's entry in the JSON file beside it; empty if the file is not a watcher's.

    None if it is missing, or damaged, as after a power loss.

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
    """Return a unique name beside a file, also across machines."""
    return path.with_name(f".{uuid.uuid4().hex}.part")


def _write(path: Path, content: bytes, *, new: bool = False) -> bool:
    """Write a file atomically. With `new`, return False if the name is used."""
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
    """Create a file with its content, and return True if the name was free."""
    try:
        os.link(content, path)
    except FileExistsError:
        return False
    except OSError:  # no links on FAT and some shares: the file is empty for a moment
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            return False
    return True


def _move(source: Path, target: Path) -> None:
    """Move an image; on another disk it is synced first, so that a power loss cannot take it."""
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
            with contextlib.suppress(OSError):  # some shares own all files themselves
                shutil.copystat(source, temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        source.unlink()
