"""A store in a folder of this machine, or of a mounted share."""

import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from app.storage.store import StoreUnavailable

INCOMING: Final = "incoming"  # subfolder of unfinished files
_ABANDONED_SECONDS: Final = 24 * 3600


class FolderStore:
    """Files in a folder, written to its subfolder `incoming` and renamed.

    Args:
        folder: need not exist.
        sync: flush a file to the disk before its name appears, so that a power cut leaves no empty one.
        share: the folder itself or one above it, which must exist: an absent share is no empty one.
    """

    def __init__(self, folder: Path, *, sync: bool = False, share: Path | None = None) -> None:
        self._folder = folder
        self._share = share
        self._incoming = folder / INCOMING
        self._sync = sync

    @property
    def folder(self) -> Path:
        return self._folder

    def read(self, name: str) -> bytes:
        self._require_share()
        return (self._folder / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        path = self._folder / name
        if _holds(path, data):
            return
        with self._unfinished(path, data) as part:
            if path.is_dir():
                shutil.rmtree(path)
            part.replace(path)

    def create(self, name: str, data: bytes) -> None:
        path = self._folder / name
        with self._unfinished(path, data) as part:
            os.link(part, path)  # unlike a rename, it replaces nothing
            part.unlink()

    def delete(self, name: str) -> None:
        self._require_share()
        (self._folder / name).unlink(missing_ok=True)

    def list(self, folder: str) -> Iterator[str]:
        for parent, folders, names in os.walk(self._folder / folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            place = Path(parent).relative_to(self._folder)
            yield from ((place / name).as_posix() for name in sorted(names) if not name.startswith("."))

    def folders(self, folder: str) -> Iterator[str]:
        if (self._folder / folder).is_dir():
            for path in sorted((self._folder / folder).iterdir()):
                if path.is_dir() and not path.name.startswith("."):
                    yield path.relative_to(self._folder).as_posix()

    def exists(self, name: str) -> bool:
        return (self._folder / name).is_file()

    def remove_abandoned(self) -> None:
        """Delete unfinished files of killed writers that are more than a day old."""
        for part in self._incoming.glob("*"):
            with suppress(OSError):  # another server was faster
                if part.stat().st_mtime < time.time() - _ABANDONED_SECONDS:
                    part.unlink()

    @contextmanager
    def _unfinished(self, path: Path, data: bytes) -> Iterator[Path]:
        """Write a file under a temporary name, to rename or link; after an error it is deleted."""
        self._require_share()
        for folder in (path.parent, self._incoming):
            folder.mkdir(parents=True, exist_ok=True)
        part = self._incoming / f"{uuid.uuid4().hex}-{path.name}"
        try:
            with part.open("xb") as file:
                file.write(data)
                if self._sync:
                    file.flush()
                    os.fsync(file.fileno())
            yield part
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def _require_share(self) -> None:
        if self._share is not None and not self._share.is_dir():
            raise StoreUnavailable(f"there is no folder {self._share}: mount the share, or make the folder")


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:  # missing or unreadable: write it
        return False
