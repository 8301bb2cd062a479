"""What becomes of a picture: a JSON file beside it, perhaps an overlay, and where the picture goes.

Files appear whole or not at all, and the picture goes last: a picture that is where it was has not been dealt
with yet, so whoever finds it does all of it again, with the same outcome.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ...schemas.predict import Inspection
from ...schemas.problem import ProblemDetails
from ..errors import UnexpectedAnswerError
from .folder import MOST_BYTES, OVERLAY, SIDECAR, Found, printable, why

FAILED: Final = "failed"
_LONGEST_NAME: Final = 255  # bytes; less where the system says so, but some shares say 0, -1 or far more
_LONGEST_SUFFIX: Final = 16  # what is longer is no kind of picture
_NO_SYNC: Final = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


@dataclass(frozen=True)
class Outcome:
    """What was said of a picture: an inspection, or the problem for which it is set aside.

    Attributes:
        file: the picture.
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

    def sidecar(self) -> bytes:
        """The JSON beside the picture."""
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

    def leave(self) -> None:
        """Write beside the picture, which stays where it is.

        Raises:
            OSError: nothing is lost; it can be done again. Also where somebody else's JSON has the name.
        """
        expect_own(self.file.path)
        self._write(self.file.path)

    def target(self, folder: Path) -> Path:
        """Where in a folder the picture is moved, if the name is free and not too long."""
        return (folder / FAILED if self.inspection is None else folder) / self.file.name

    def move(self, folder: Path) -> Path:
        """Write into a folder and move the picture there, bad ones into its folder `failed`.

        Args:
            folder: may be on another disk. A name that is taken there by another picture gets the start of
                the picture's sha256, and one to which .json cannot be appended that of its own.

        Returns:
            Where the picture is.

        Raises:
            OSError: nothing is lost; it can be done again.
        """
        target = self.target(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target = _fitting(target)
        if not self._reserve(target):
            target = _marked(target, self.sha256 or self._stamp())
        _move(self.file.path, target, self._write(target))
        return target

    def _reserve(self, target: Path) -> bool:
        """Take a name by its JSON, which one watcher alone can make; False where another picture has it."""
        if target.exists() and (self.sha256 is None or _sha256(target) != self.sha256):
            return False
        return create(_sidecar(target), self.sidecar()) or self._is_own(_told(target))

    def _is_own(self, told: dict[str, Any]) -> bool:
        """Whether a JSON is of this picture."""
        if self.sha256 is None:
            stamp = self.file.stamp
            return (told.get("bytes"), told.get("modified_ns")) == (stamp.size, stamp.modified_ns)
        return told.get("sha256") == self.sha256

    def _stamp(self) -> str:
        """What tells a file that was not read from others of its name."""
        stamp = self.file.stamp
        return hashlib.sha256(f"{stamp.size} {stamp.modified_ns}".encode()).hexdigest()

    def _write(self, picture: Path) -> list[Path]:
        """Write what goes beside a picture; which files these are."""
        written = [_sidecar(picture)]
        # Not under a name that was cut: without its JSON nothing would tell it from a picture.
        overlay = picture.with_name(picture.name + OVERLAY)
        if self.overlay is not None and _fits(overlay):
            replace(overlay, self.overlay)
            written.append(overlay)
        replace(written[0], self.sidecar())
        return written


def foreign(error: UnexpectedAnswerError) -> ProblemDetails:
    """The problem of a picture that something before the server has refused.

    Its answer was no problem document of ours, so there are no more than the status and our own words.
    """
    title = f"Status {error.status}, from something between here and the server"
    return _problem(title, error.status, str(error))


def unspeakable(part_id: str) -> ProblemDetails:
    """The problem of a picture whose name has a part's id that is not UTF-8, as all ids are."""
    detail = f"The part's id in the name is {printable(part_id)}, which is not UTF-8."
    return _problem("The part's id is not UTF-8", 400, detail)


def oversized(found: Found) -> ProblemDetails:
    """The problem of a file that is too large to be read."""
    detail = f"The file has {found.stamp.size} bytes, and none of more than {MOST_BYTES} is read."
    return _problem("Too large to be read", 413, detail)


def _problem(title: str, status: int, detail: str) -> ProblemDetails:
    """One that is not the server's."""
    return ProblemDetails(
        type="about:blank",  # RFC 9457, section 4.2.1: no more than the status says
        title=title,
        status=status,
        detail=detail,
        instance="",
        request_id="",
    )


def expect_own(picture: Path) -> None:
    """Expect that no other's JSON is where a watcher's would be.

    Raises:
        FileExistsError: there is one, a camera's say. One that is damaged may be a watcher's.
        OSError: it cannot be read.
    """
    sidecar = _sidecar(picture)
    try:
        told = json.loads(sidecar.read_bytes())
    except (FileNotFoundError, ValueError):
        return
    if not (isinstance(told, dict) and isinstance(told.get("file"), dict) and "sha256" in told["file"]):
        raise FileExistsError(errno.EEXIST, "it is there already, and not a watcher's", str(sidecar))


def is_dealt_with(found: Found, sha256: str | None) -> bool:
    """Whether the JSON beside a picture is of this very state of it.

    Args:
        found: the picture.
        sha256: of its bytes: another picture may have come with the same size and time. None where it is too
            large to be read.
    """
    try:
        told = _told(found.path)
    except OSError:
        return False
    said = told.get("bytes"), told.get("modified_ns"), told.get("sha256")
    return said == (found.stamp.size, found.stamp.modified_ns, sha256)


def replace(path: Path, content: bytes) -> None:
    """Write a file that appears whole, or not at all."""
    temporary = _temporary(path)
    try:
        with _named(path, temporary):
            temporary.write_bytes(content)
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def create(path: Path, content: bytes) -> bool:
    """Write a file that appears whole, if there is none of its name; returns whether there was none."""
    temporary = _temporary(path)
    try:
        with _named(path, temporary):
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
            with _named(path, temporary):
                temporary.replace(path)
        return True
    finally:
        temporary.unlink(missing_ok=True)


def _move(source: Path, target: Path, beside: Sequence[Path]) -> None:
    """Move a picture; to another disk, where a power cut takes neither it nor what is beside it any more."""
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # Not found out by filling the disk; for pictures alone it need not be right, as some shares say 0.
        if (size := source.stat().st_size) > MOST_BYTES and size > shutil.disk_usage(target.parent).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target.parent)) from error
        temporary = _temporary(target)
        try:
            with _named(target, temporary):
                _copy(source, temporary)
                for path in beside:
                    with contextlib.suppress(FileNotFoundError, PermissionError):  # somebody reads it already
                        _sync(path)
                temporary.replace(target)
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
        _keep_names(target.parent)
        source.unlink()


def _copy(source: Path, target: Path) -> None:
    """Copy a file to where a power cut does not take it; its times, too, where they can be set."""
    shutil.copyfile(source, target)
    _sync(target)
    with contextlib.suppress(OSError):  # on some shares all files are somebody else's
        shutil.copystat(source, target)


def _sync(path: Path) -> None:
    """Have a file's bytes outlast a power cut, where the share can do that."""
    with path.open("rb+") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in _NO_SYNC:
                raise


def _keep_names(folder: Path) -> None:
    """Have the names in a folder outlast a power cut, where the system can do that."""
    with contextlib.suppress(OSError):  # Windows opens no folder, and some shares cannot
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _named(path: Path, temporary: Path) -> Iterator[None]:
    """Let errors name the file that is meant: the temporary one has another name at each attempt."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        is_ours = error.filename in (None, str(temporary))
        raise OSError(error.errno, why(error), str(path) if is_ours else error.filename) from error


def _temporary(path: Path) -> Path:
    """A name beside a file that nobody else has, on another machine neither."""
    return path.with_name(f".{uuid.uuid4().hex}.part")


def _sidecar(picture: Path) -> Path:
    fitting = _fitting(picture)
    return fitting.with_name(fitting.name + SIDECAR)


def _fitting(picture: Path) -> Path:
    """The name of a picture, made shorter where a JSON's would be too long for its folder.

    It gets the start of the sha256 of the whole name: another picture's may begin as it does.
    """
    if _fits(picture.with_name(picture.name + SIDECAR)):
        return picture
    return _marked(picture, hashlib.sha256(os.fsencode(picture.name)).hexdigest())


def _marked(picture: Path, sha256: str) -> Path:
    """The name with the start of a sha256, cut so that those of its JSON and its overlay fit, too."""
    suffix = picture.suffix if _length(picture.suffix) <= _LONGEST_SUFFIX else ""
    stem, mark = picture.name.removesuffix(suffix), f"-{sha256[:12]}{suffix}"
    room = _longest(picture.parent) - _length(mark) - max(map(len, (SIDECAR, OVERLAY)))
    while stem and _length(stem) > room:
        stem = stem[:-1]  # a letter may have several bytes
    return picture.with_name(stem + mark)


def _fits(path: Path) -> bool:
    return _length(path.name) <= _longest(path.parent)


def _length(name: str) -> int:
    return len(os.fsencode(name))


def _longest(folder: Path) -> int:
    """Bytes that a name in a folder may have."""
    try:
        told = os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # Windows has no such function
        return _LONGEST_NAME
    return min(told, _LONGEST_NAME) if told > 0 else _LONGEST_NAME


def _told(picture: Path) -> dict[str, Any]:
    """What the JSON beside a picture says of the file; nothing where it is none of ours, or damaged.

    Raises:
        OSError: it cannot be read.
    """
    content = _sidecar(picture).read_bytes()
    try:
        told = json.loads(content)["file"]
    except (ValueError, TypeError, KeyError):
        return {}
    return told if isinstance(told, dict) else {}
