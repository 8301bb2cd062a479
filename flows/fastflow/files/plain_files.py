"""Reading of regular files, within limits, from folders that other users may write to."""

import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from flows.fastflow.files.listing import indent_first

_CHUNK = 1024 * 1024
_MAX_NAMED = 20


class FileError(ValueError):
    """A file is not regular, is too large, or cannot be read."""


def read_file(path: Path, max_bytes: int) -> bytes:
    """Return the bytes of a regular file of at most `max_bytes`.

    Raises:
        FileError: the file is larger, or not a regular file.
        OSError: the file does not exist or cannot be read.
    """
    require_plain(path, max_bytes)
    return path.read_bytes()


def require_plain(path: Path, max_bytes: int) -> None:
    """Check that a path is a regular file: a pipe would block its reader, a link leads elsewhere.

    Raises:
        FileError: the path is a link, a pipe, a device or a directory, or larger than `max_bytes`.
        OSError: the path does not exist.
    """
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise FileError(f"{path} is a link, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise FileError(f"{path} is not a regular file")
    if status.st_size > max_bytes:
        raise FileError(f"{path} is larger than {max_bytes:,} bytes")


def sha256_of(path: Path, max_bytes: int) -> str:
    """Return the sha256 of a regular file of at most `max_bytes`, without loading it.

    Raises:
        FileError, OSError: see `read_file`.
    """
    require_plain(path, max_bytes)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_hashes(paths: Sequence[Path]) -> list[str]:
    """Return the sha256 of each file of any size; links are followed.

    Raises:
        FileError: files cannot be read; the message names up to `_MAX_NAMED` of them.
    """
    hashes, unreadable = [], []
    for path in paths:
        try:
            with path.open("rb") as file:
                hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            unreadable.append(f"{path}: {error.strerror or error}")
    if unreadable:
        listed = "\n".join(indent_first(unreadable, _MAX_NAMED))
        raise FileError(f"{len(unreadable)} of {len(paths)} files cannot be read:\n{listed}")
    return hashes


def file_sizes(folder: Path, max_files: int) -> dict[str, int]:
    """Return the sizes of all files below a folder, by relative name with forward slashes.

    Raises:
        FileError: an entry is neither a regular file nor a directory, or there are more than `max_files`.
        OSError: a directory cannot be read.
    """
    if folder.is_symlink():
        raise FileError(f"{folder} is a link, not a directory")
    sizes: dict[str, int] = {}
    for parent, folders, files in os.walk(folder, onerror=_raise):
        for name in (*folders, *files):
            path = Path(parent, name)
            relative = path.relative_to(folder).as_posix()
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                sizes[relative] = status.st_size
            elif not stat.S_ISDIR(status.st_mode):
                kind = "a link" if stat.S_ISLNK(status.st_mode) else "an entry that is not a regular file"
                raise FileError(f"{folder} holds {kind}: {relative}")
        if len(sizes) > max_files:
            raise FileError(f"{folder} holds more than {max_files} files")
    return sizes


def escape_name(name: str) -> str:
    r"""Return a file's name as readable text, with bytes that are not UTF-8 as \xNN."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _raise(error: OSError) -> None:
    raise error
