"""Files beside the database: uploaded images and score maps."""

import hashlib
import io
import logging
import re
import shutil
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger("flowgauge.history")


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


class InspectionFiles:
    """The files of one history.

        pictures/ab/<sha256>      the bytes of an upload, stored once
        maps/ef/<id>.npy          the score map of an inspection, float16
        incoming/                 unfinished files

    A file is written to `incoming` and renamed, so it is complete or absent. Only the history's writer writes
    and deletes files (`History.run_in_writer`); any thread may read.
    """

    def __init__(self, folder: Path) -> None:
        self._images = folder / "pictures"
        self._maps = folder / "maps"
        self._incoming = folder / "incoming"

    def open(self) -> None:
        """Create the folders, and remove unfinished files of a killed process."""
        shutil.rmtree(self._incoming, ignore_errors=True)
        for folder in (self._images, self._maps, self._incoming):
            folder.mkdir(parents=True, exist_ok=True)

    def folders(self) -> list[Path]:
        """List the subfolders of images and maps."""
        return [folder for root in (self._images, self._maps) for folder in root.iterdir() if folder.is_dir()]

    def is_image(self, path: Path) -> bool:
        """Tell if a file in these folders is an image."""
        return path.parent.parent == self._images and is_image_name(path.name)

    def is_map(self, path: Path) -> bool:
        """Tell if a file in these folders is a map."""
        return path.parent.parent == self._maps and re.fullmatch("[0-9a-f-]{36}", path.stem) is not None

    def image_path(self, sha256: str) -> Path:
        return self._images / sha256[:2] / sha256

    def map_path(self, identifier: str) -> Path:
        # The last digits are random; the first are the time and stay the same for months.
        return self._maps / identifier[-2:] / f"{identifier}.npy"

    def read_image(self, sha256: str) -> bytes | None:
        """Read the bytes of an upload; None if they are missing or changed."""
        try:
            data = self.image_path(sha256).read_bytes()
        except FileNotFoundError:
            return None
        except OSError:
            logger.exception("the image %s cannot be read", sha256)
            return None
        return data if hashlib.sha256(data).hexdigest() == sha256 else None

    def read_score_map(self, identifier: str) -> NDArray[np.float32] | None:
        """Read an inspection's map, (h, w); None if it is missing or damaged."""
        data = self.read_map_file(identifier)
        return None if data is None else _scores(data).astype(np.float32)

    def read_map_file(self, identifier: str) -> bytes | None:
        """Read an inspection's map as NumPy's .npy; None if it is missing or damaged.

        No checksum exists; type, shape and values show damage.
        """
        try:
            data = self.map_path(identifier).read_bytes()
            scores = _scores(data)
        except FileNotFoundError:
            return None
        except Exception:  # NumPy raises many kinds for damaged headers
            logger.exception("the map of inspection %s cannot be read", identifier)
            return None
        # Flipped bits can make values infinite, which cannot be drawn.
        is_map = scores.dtype == np.float16 and scores.ndim == 2 and scores.size and np.isfinite(scores).all()
        return data if is_map else None

    def store(self, sha256: str, image: bytes, identifier: str, score_map: bytes) -> None:
        """Write an inspection's files; identical files stay.

        Raises:
            OSError: the disk is full. No unfinished file is left.
        """
        self._write(self.image_path(sha256), image)
        self._write(self.map_path(identifier), score_map)

    def _write(self, path: Path, data: bytes) -> None:
        try:
            if path.stat().st_size == len(data) and path.read_bytes() == data:
                return
        except OSError:  # missing or unreadable: write it
            path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.rmtree(path)
        part = self._incoming / path.name
        try:
            part.write_bytes(data)
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise


def _scores(data: bytes) -> NDArray[Any]:
    scores: NDArray[Any] = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    return scores
