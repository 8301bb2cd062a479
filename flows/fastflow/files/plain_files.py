"""Reading files of a folder that others write to: only regular ones, within limits."""

import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from flows.fastflow.files.listing import indent_first

_CHUNK = 1024 * 1024
_NAMED = 20


class FileError(ValueError):
    """Something that is no regular file, is larger than it may be, or cannot be read."""


def read_file(path: Path, max_bytes: int) -> bytes:
    """Return the bytes of a regular file of at most `max_bytes`.

    Raises:
        FileError: it is larger, or no regular file.
        OSError: it does not exist or cannot be read.
    """
    require_plain(path, max_bytes)
    return path.read_bytes()


def require_plain(path: Path, max_bytes: int) -> None:
    """Check that a path is a regular file: a pipe would block its reader, a link leads elsewhere.

    Raises:
        FileError: it is a link, a pipe, a device or a directory, or larger than `max_bytes`.
        OSError: it does not exist.
    """
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise FileError(f"{path} is a link, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise FileError(f"{path} is no regular file")
    if status.st_size > max_bytes:
        raise FileError(f"{path} is larger than {max_bytes:,} bytes")


def sha256_of(path: Path, max_bytes: int) -> str:
    """Return the sha256 of a regular file of at most `max_bytes`, without holding it in memory.

    Raises:
        FileError, OSError: as `read_file`.
    """
    require_plain(path, max_bytes)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_hashes(paths: Sequence[Path]) -> list[str]:
    """Return the sha256 of each file, however large; links are followed.

    Raises:
        FileError: some cannot be read: they are named, at most `_NAMED` of them.
    """
    found, wrong = [], []
    for path in paths:
        try:
            with path.open("rb") as file:
                found.append(hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            wrong.append(f"{path}: {error.strerror or error}")
    if wrong:
        listed = "\n".join(indent_first(wrong, _NAMED))
        raise FileError(f"{len(wrong)} of {len(paths)} files cannot be read:\n{listed}")
    return found


def file_sizes(folder: Path, max_files: int) -> dict[str, int]:
    """Return the sizes of all files below a folder, by relative name with forward slashes.

    Raises:
        FileError: something is neither a regular file nor a directory, or there are more than `max_files`.
        OSError: a directory cannot be read.
    """
    if folder.is_symlink():
        raise FileError(f"{folder} is a link, not a directory")
    found: dict[str, int] = {}
    for parent, folders, files in os.walk(folder, onerror=_raise):
        for name in (*folders, *files):
            path = Path(parent, name)
            relative = path.relative_to(folder).as_posix()
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                found[relative] = status.st_size
            elif not stat.S_ISDIR(status.st_mode):
                kind = "a link" if stat.S_ISLNK(status.st_mode) else "something that is no file"
                raise FileError(f"{folder} holds {kind}, {relative}")
        if len(found) > max_files:
            raise FileError(f"{folder} holds more than {max_files} files")
    return found


def escape_name(name: str) -> str:
    r"""Return a file's name as text for people: bytes of it that are no UTF-8 are written as \xNN."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _raise(error: OSError) -> None:
    raise error
