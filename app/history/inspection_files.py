"""Files beside the database: uploaded images and score maps."""

import hashlib
import io
import logging
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.storage.folder_store import INCOMING, FolderStore
from app.storage.parallel import for_each
from app.storage.recent_reads import RecentReads
from app.storage.store import Store, StoreUnavailable
from app.storage.urls import require_conditional_put
from flows.fastflow.files.atomic_files import link_or_copy

logger = logging.getLogger("flowgauge.history")

_IMAGES: Final = "pictures"
_MAPS: Final = "maps"
_RECENT_BYTES: Final = 64 * 2**20


class UploadFormat(NamedTuple):
    """An image format of uploads."""

    media_type: str
    suffix: str


_FORMATS: Final = {
    b"\x89PNG": UploadFormat("image/png", "png"),
    b"\xff\xd8": UploadFormat("image/jpeg", "jpg"),
    b"BM": UploadFormat("image/bmp", "bmp"),
    b"RIFF": UploadFormat("image/webp", "webp"),
}
# TIFF alone has several signatures.
_TIFF: Final = UploadFormat("image/tiff", "tif")
FORMATS: Final = (*_FORMATS.values(), _TIFF)


def detect_format(image: bytes) -> UploadFormat:
    """Detect the format of an accepted upload by its first bytes."""
    return next((kind for magic, kind in _FORMATS.items() if image.startswith(magic)), _TIFF)


def is_image_name(name: str) -> bool:
    """Tell if a file name is one of an image: a SHA-256 in hexadecimal."""
    return re.fullmatch("[0-9a-f]{64}", name) is not None


def image_name(sha256: str) -> str:
    return f"{_IMAGES}/{sha256[:2]}/{sha256}"


def find_sha256(name: str) -> str | None:
    """Return the sha256 of the image that a file's name is of; None for another file."""
    match = re.fullmatch(rf"{_IMAGES}/../([0-9a-f]{{64}})", name)
    return match and match[1]


def find_identifier(name: str) -> str | None:
    """Return the inspection whose map a file's name is of; None for another file."""
    match = re.fullmatch(rf"{_MAPS}/../([0-9a-f-]{{36}})\.npy", name)
    return match and match[1]


def map_name(identifier: str) -> str:
    # The last digits are random; the first are the time and stay the same for months.
    return f"{_MAPS}/{identifier[-2:]}/{identifier}.npy"


class InspectionFiles:
    """The images and maps of a history, in its folder or in a store that servers share.

        pictures/ab/<sha256>      the bytes of an upload, stored once
        maps/ef/<id>.npy          the score map of an inspection, float16
        incoming/                 unfinished files of a folder

    A file is complete or absent. Only a history's writer writes and deletes files (`History.run_in_writer`);
    any thread may read.

    Args:
        store: in place of the folder.

    Raises:
        StoreUnavailable: from each method, if the store does not answer.
    """

    def __init__(self, folder: Path, store: Store | None = None) -> None:
        self._is_shared = store is not None
        self._store = store or FolderStore(folder)
        self._recent = RecentReads(_RECENT_BYTES)

    def open(self) -> None:
        """Try a shared store; else create the folders, and remove unfinished files of a killed process.

        Raises:
            StoreError: the store has no conditional put.
        """
        if self._is_shared:
            require_conditional_put(self._store)
            return
        shutil.rmtree(self._folder / INCOMING, ignore_errors=True)
        for name in (_IMAGES, _MAPS, INCOMING):
            (self._folder / name).mkdir(parents=True, exist_ok=True)

    def names(self) -> Iterator[list[str]]:
        """Yield the names of all files, those of one subfolder at a time."""
        for root in (_IMAGES, _MAPS):
            for folder in self._store.folders(root):
                yield [*self._store.list(folder)]

    def image_path(self, sha256: str) -> Path:
        return self._folder / image_name(sha256)

    def map_path(self, identifier: str) -> Path:
        return self._folder / map_name(identifier)

    def read_image(self, sha256: str) -> bytes | None:
        """Read the bytes of an upload; None if they are missing or changed."""
        try:
            data = self._read(image_name(sha256))
        except FileNotFoundError:
            return None
        except StoreUnavailable:
            raise
        except OSError:
            logger.exception("the image %s cannot be read", sha256)
            return None
        if hashlib.sha256(data).hexdigest() == sha256:
            return data
        self._recent.forget(image_name(sha256))
        return None

    def may_have_image(self, sha256: str) -> bool:
        """Return False if an image is missing; True without a look where each costs a request."""
        return self._store.folder is None or self.image_path(sha256).is_file()

    def provide_image(self, sha256: str, target: Path) -> None:
        """Make a hard link to an image, or a copy; FileNotFoundError if it is missing."""
        if self._store.folder is None:
            target.write_bytes(self._store.read(image_name(sha256)))
        else:
            link_or_copy(self.image_path(sha256), target)

    def read_score_map(self, identifier: str) -> NDArray[np.float32] | None:
        """Read an inspection's map, (h, w); None if it is missing or damaged."""
        data = self.read_map_file(identifier)
        return None if data is None else _scores(data).astype(np.float32)

    def read_map_file(self, identifier: str) -> bytes | None:
        """Read an inspection's map as NumPy's .npy; None if it is missing or damaged.

        No checksum exists; type, shape and values show damage.
        """
        try:
            data = self._read(map_name(identifier))
            scores = _scores(data)
        except FileNotFoundError:
            return None
        except StoreUnavailable:
            raise
        except Exception:  # NumPy raises many kinds for damaged headers
            logger.exception("the map of inspection %s cannot be read", identifier)
            self._recent.forget(map_name(identifier))
            return None
        # Flipped bits can make values infinite, which cannot be drawn.
        is_map = scores.dtype == np.float16 and scores.ndim == 2 and scores.size and np.isfinite(scores).all()
        if is_map:
            return data
        self._recent.forget(map_name(identifier))
        return None

    def store_all(self, files: Mapping[str, bytes]) -> None:
        """Write files by name.

        Raises:
            OSError: the disk is full. No unfinished file is left.
        """
        for_each(self._store, lambda name: self._store.write(name, files[name]), files)

    def remove(self, names: Iterable[str]) -> None:
        """Delete files by name; those that are missing are skipped."""
        for_each(self._store, self._store.delete, names)

    @property
    def _folder(self) -> Path:
        if self._store.folder is None:
            raise RuntimeError("the files are in no folder")
        return self._store.folder

    def _read(self, name: str) -> bytes:
        if self._store.folder is not None:
            return self._store.read(name)
        return self._recent.get(name, self._store.read)


def _scores(data: bytes) -> NDArray[Any]:
    scores: NDArray[Any] = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    return scores
