"""What becomes of an image: a JSON file beside it, perhaps an overlay, and where the image goes.

Files appear whole or not at all, and the image is moved last: one that is where it was has not been dealt
with yet, so whoever finds it does all of it again, with the same outcome.
"""

import contextlib
import errno
import hashlib
import itertools
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ...schemas.predict import Inspection
from ...schemas.problem import ProblemDetails
from .folder import OVERLAY, SIDECAR, Found, printable

FAILED: Final = "failed"
_LONGEST_NAME: Final = 255 - len(OVERLAY)  # bytes; names of what is written beside an image are longer
_LONGEST_SUFFIX: Final = 16  # what is longer is no kind of image
_NO_SYNC: Final = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


@dataclass(frozen=True)
class Outcome:
    """What was said of an image: an inspection, or the problem for which it is set aside.

    Attributes:
        file: the image.
        sha256: of its bytes; None where it was too large to be read.
        inspection: what the server said.
        problem: or why it said nothing.
        overlay: a PNG.
    """

    file: Found
    sha256: str | None
    inspection: Inspection | None
    problem: ProblemDetails | None
    overlay: bytes | None = None

    def leave(self) -> None:
        """Write beside the image, which stays where it is.

        Raises:
            OSError: nothing is lost; it can be done again. Also where somebody else's JSON has the name.
        """
        require_no_foreign_json(self.file.path)
        self._write_beside(_named(self.file.path))

    def target(self, folder: Path) -> Path:
        """Where in a folder the image is moved, if the name is free and not too long."""
        return (folder / FAILED if self.inspection is None else folder) / self.file.name

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
        target = self.target(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target = next(name for name in _names(target, self._mark()) if self._reserve(name))
        self._write_beside(target)
        _move(self.file.path, target)
        return target

    def _reserve(self, target: Path) -> bool:
        """Take a name by its JSON, which one watcher alone can make; False where another image has it."""
        sidecar = _sidecar(target)
        if self._is_own(_told(sidecar)):  # a process was killed after it had made it
            return True
        return not os.path.lexists(target) and _create(sidecar, self._json())

    def _is_own(self, told: dict[str, Any]) -> bool:
        """Whether a JSON is of this image."""
        if told.get("name") != printable(self.file.name) or "sha256" not in told:
            return False
        if self.sha256 is not None:
            return bool(told["sha256"] == self.sha256)
        stamp = self.file.stamp
        return (told.get("bytes"), told.get("modified_ns")) == (stamp.size, stamp.modified_ns)

    def _write_beside(self, target: Path) -> None:
        if self.overlay is not None:
            _replace(target.with_name(target.name + OVERLAY), self.overlay)
        _replace(_sidecar(target), self._json())

    def _json(self) -> bytes:
        told: dict[str, Any] = {
            "file": {
                "name": printable(self.file.name),
                "bytes": self.file.stamp.size,
                "modified_ns": self.file.stamp.modified_ns,
                "sha256": self.sha256,
            }
        }
        if self.inspection is not None:
            told["inspection"] = self.inspection.model_dump(mode="json", exclude={"inline"})
        if self.problem is not None:
            told["problem"] = self.problem.model_dump(mode="json")
        return (json.dumps(told, indent=1) + "\n").encode()

    def _mark(self) -> str:
        stamp = self.file.stamp
        return self.sha256 or hashlib.sha256(f"{stamp.size} {stamp.modified_ns}".encode()).hexdigest()


def problem(title: str, status: int, detail: str) -> ProblemDetails:
    """A problem that is not the server's (RFC 9457, section 4.2.1: no more than the status says)."""
    return ProblemDetails(
        type="about:blank", title=title, status=status, detail=detail, instance="", request_id=""
    )


def require_no_foreign_json(image: Path) -> None:
    """Require that no other's JSON is where a watcher's would be.

    Raises:
        FileExistsError: there is one, a camera's say. One that is damaged may be a watcher's.
        OSError: it cannot be read.
    """
    sidecar = _sidecar(_named(image))
    try:
        told = json.loads(sidecar.read_bytes())
    except (FileNotFoundError, ValueError):
        return
    if not (isinstance(told, dict) and isinstance(told.get("file"), dict) and "sha256" in told["file"]):
        raise FileExistsError(errno.EEXIST, "it is there already, and not a watcher's", str(sidecar))


def _told(sidecar: Path) -> dict[str, Any]:
    """What a JSON says of its image; nothing where it is missing or none of a watcher."""
    try:
        told = json.loads(sidecar.read_bytes())["file"]
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return {}
    return told if isinstance(told, dict) else {}


def _sidecar(image: Path) -> Path:
    return image.with_name(image.name + SIDECAR)


def _named(image: Path) -> Path:
    """The name under which is written beside an image: its own, or shorter where that is too long."""
    return next(_names(image, hashlib.sha256(os.fsencode(image.name)).hexdigest()))


def _names(target: Path, mark: str) -> Iterator[Path]:
    """Names for an image: its own unless that is too long, then others that end in the start of a sha256."""
    if len(os.fsencode(target.name)) <= _LONGEST_NAME:
        yield target
    suffix = target.suffix if len(os.fsencode(target.suffix)) <= _LONGEST_SUFFIX else ""
    for number in itertools.count(1):
        end = f"-{mark[:12]}{'' if number == 1 else f'-{number}'}{suffix}"
        stem = target.name.removesuffix(suffix)
        while len(os.fsencode(stem + end)) > _LONGEST_NAME:
            stem = stem[:-1]  # a letter may have several bytes
        yield target.with_name(stem + end)


def _temporary(path: Path) -> Path:
    """A name beside a file that nobody else has, on another machine neither."""
    return path.with_name(f".{uuid.uuid4().hex}.part")


def _replace(path: Path, content: bytes) -> None:
    """Write a file that appears whole, or not at all."""
    temporary = _temporary(path)
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _create(path: Path, content: bytes) -> bool:
    """Write a file that appears whole, if there is none of its name; returns whether there was none."""
    temporary = _temporary(path)
    try:
        temporary.write_bytes(content)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # FAT and some shares have no links; there it is empty for a moment
            try:
                path.touch(exist_ok=False)
            except FileExistsError:
                return False
            temporary.replace(path)
        return True
    finally:
        temporary.unlink(missing_ok=True)


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
            _sync(temporary)
            with contextlib.suppress(OSError):  # on some shares all files are somebody else's
                shutil.copystat(source, temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        source.unlink()


def _sync(path: Path) -> None:
    """Have a file's bytes outlast a power cut, where the share can do that."""
    with path.open("rb+") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in _NO_SYNC:
                raise
