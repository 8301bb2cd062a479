"""Files of a folder that others write to: only regular ones, read within limits, written whole or not at all.

A named pipe would keep its reader waiting for ever, a link leads out of the folder, a device never ends.
"""

import hashlib
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from flows.fastflow.listing import lines

# Names of what is being written; a leading dot keeps it out of every listing until it is renamed.
_PREFIX, _SUFFIX = ".", ".part"
_PART = re.compile(r"\..+\.part")
_ABANDONED_SECONDS = 24 * 3600
_MAX_DEPTH = 8
_CHUNK = 1024 * 1024
_NAMED = 20


class FileError(ValueError):
    """Something that is no regular file, is larger than it may be, or cannot be read."""


@contextmanager
def open_plain(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file to read.

    Raises:
        FileError: it is a link, a pipe, a device or a directory.
        OSError: it is not there or cannot be read.
    """
    # Neither following a link nor waiting for the other end of a pipe; Windows has no such flags.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    if path.is_symlink():
        raise FileError(f"{path} is a link, not a file")
    handle = os.open(path, flags | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise FileError(f"{path} is no regular file")
    with os.fdopen(handle, "rb") as file:
        yield file


def read_file(path: Path, max_bytes: int) -> bytes:
    """The bytes of a regular file of at most `max_bytes`.

    Raises:
        FileError: it is larger, or no regular file.
        OSError: it is not there or cannot be read.
    """
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        # Not as much as is allowed at once: room is made for all that is asked for.
        data = file.read(size) if size <= max_bytes else b""
        while size <= max_bytes and (more := file.read(_CHUNK)):  # it grows meanwhile
            data += more
            size = len(data)
    if size > max_bytes:
        raise FileError(f"{path} is larger than {max_bytes:,} bytes")
    return data


def sha256_of(path: Path, max_bytes: int) -> str:
    """The sha256 of a regular file of at most `max_bytes`, without holding it in memory.

    Raises:
        FileError, OSError: as `read_file`.
    """
    sha256, left = hashlib.sha256(), max_bytes
    with open_plain(path) as file:
        while chunk := file.read(_CHUNK):
            left -= len(chunk)
            if left < 0:
                raise FileError(f"{path} is larger than {max_bytes:,} bytes")
            sha256.update(chunk)
    return sha256.hexdigest()


def file_hashes(paths: Sequence[Path]) -> list[str]:
    """sha256 of the bytes of each file, however large, or of what a link leads to.

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
        listed = "\n".join(lines(wrong, _NAMED))
        raise FileError(f"{len(wrong)} of {len(paths)} files cannot be read:\n{listed}")
    return found


def sizes(folder: Path, max_files: int) -> dict[str, int]:
    """Sizes of all files below a folder, by relative name with forward slashes.

    Raises:
        FileError: something is neither a regular file nor a directory, or there are more than `max_files`
            entries, or directories in each other without end.
        OSError: a directory cannot be read.
    """
    if folder.is_symlink():
        raise FileError(f"{folder} is a link, not a directory")
    found: dict[str, int] = {}
    seen = 0
    waiting = [("", 0)]
    while waiting:
        name, depth = waiting.pop()
        with os.scandir(folder / name) as entries:
            for entry in entries:
                relative = f"{name}/{entry.name}" if name else entry.name
                status = entry.stat(follow_symlinks=False)
                seen += 1
                if seen > max_files or depth > _MAX_DEPTH:
                    raise FileError(f"{folder} holds more than {max_files} files, or is too deep")
                if stat.S_ISDIR(status.st_mode):
                    waiting.append((relative, depth + 1))
                elif stat.S_ISREG(status.st_mode):
                    found[relative] = status.st_size
                else:
                    kind = "a link" if stat.S_ISLNK(status.st_mode) else "something that is no file"
                    raise FileError(f"{folder} holds {kind}, {relative}")
    return found


@contextmanager
def temporary_directory(parent: Path) -> Iterator[Path]:
    """A directory to fill and rename; what is still there at the end is removed."""
    parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=parent, prefix=_PREFIX, suffix=_SUFFIX))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file under another name and rename it into place; a power cut leaves it or the one before."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=_PREFIX, suffix=_SUFFIX)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # or the name may be on the disk, and its bytes not
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def escaped(name: str) -> str:
    """A file's name as text for people and reports: bytes of it that are no UTF-8 are written as \\xNN."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def remove_directory(path: Path) -> None:
    """Take a directory away in one step: a reader finds all of it or nothing. A link goes, not its target."""
    with temporary_directory(path.parent) as temporary:
        moved = temporary / path.name
        path.rename(moved)
        if moved.is_symlink():
            moved.unlink()


def sweep(folder: Path) -> None:
    """Remove what killed writers have left in a folder, a day after they were at it."""
    oldest = time.time() - _ABANDONED_SECONDS
    for path in folder.iterdir() if folder.is_dir() else ():
        try:
            if not _PART.fullmatch(path.name) or path.lstat().st_mtime > oldest:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        except OSError:
            continue  # somebody else's, or gone meanwhile: in nobody's way


def stamp_of(path: Path, folder: Path) -> tuple[int, ...]:
    """What changes when a file is replaced; empty where there is none.

    Args:
        path: the file.
        folder: above it, which must be there: one that is gone for a moment says nothing of its files.

    Raises:
        OSError: the folder is not there, or one of the two cannot be looked at.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        folder.stat()
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns
