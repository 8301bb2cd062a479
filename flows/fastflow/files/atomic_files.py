"""Atomic writing of files and directories: under a temporary name, then renamed."""

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

# Temporary names; the leading dot keeps them out of every listing until they are renamed.
_PREFIX: Final = "."
_SUFFIX: Final = ".part"
_PART: Final = re.compile(r"\..+\.part")
_ABANDONED_SECONDS: Final = 24 * 3600


def replace_file(path: Path, data: bytes, *, sync: bool, via: Path | None = None) -> None:
    """Replace a file's content in one step; for the arguments see `replacing`."""
    with replacing(path, sync=sync, via=via) as temporary:
        temporary.write_bytes(data)


@contextmanager
def replacing(path: Path, *, sync: bool, via: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path to write to, and rename it into place unless an error is raised.

    Args:
        sync: flush the file to the disk before the rename: a power cut then leaves the old or the new
            content, and never an empty file.
        via: folder on the same disk for the temporary file; None for the file's own.
    """
    with temporary_directory(via or path.parent) as folder:
        temporary = folder / path.name
        yield temporary
        temporary.chmod(0o644)
        if sync:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(path)


@contextmanager
def temporary_directory(parent: Path) -> Iterator[Path]:
    """Create a directory to fill and rename; it is deleted if it was not renamed."""
    parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=parent, prefix=_PREFIX, suffix=_SUFFIX))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_directory(path: Path) -> None:
    """Delete a directory in one step: readers see all of it or nothing."""
    with temporary_directory(path.parent) as temporary:
        path.rename(temporary / path.name)


def remove_abandoned(folder: Path) -> None:
    """Delete temporary files of killed writers that are more than a day old."""
    oldest = time.time() - _ABANDONED_SECONDS
    for path in folder.glob(".*"):
        try:
            if not _PART.fullmatch(path.name) or path.lstat().st_mtime > oldest:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        except OSError:
            continue  # another user's, or already deleted


def link_or_copy(source: Path, target: Path) -> None:
    """Make a hard link to a file, or a copy on another file system or one without hard links."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)
