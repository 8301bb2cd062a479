"""The files beside the database: pictures as they were uploaded, and score maps."""

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
    """A format of uploads."""

    media_type: str
    suffix: str


_FORMATS: Final = {
    b"\x89PNG": UploadFormat("image/png", "png"),
    b"\xff\xd8": UploadFormat("image/jpeg", "jpg"),
    b"BM": UploadFormat("image/bmp", "bmp"),
    b"RIFF": UploadFormat("image/webp", "webp"),
}
# It alone begins in several ways.
_TIFF: Final = UploadFormat("image/tiff", "tif")
FORMATS: Final = (*_FORMATS.values(), _TIFF)


def detect_format(picture: bytes) -> UploadFormat:
    """What an upload, or its first bytes, is: uploads are of five formats, so a few bytes tell them apart."""
    return next((kind for magic, kind in _FORMATS.items() if picture.startswith(magic)), _TIFF)


def is_image_name(name: str) -> bool:
    """Whether a picture's file can have this name."""
    return re.fullmatch("[0-9a-f]{64}", name) is not None


class InspectionFiles:
    """The files of one history.

        pictures/ab/<sha256>      the bytes of an upload, once however often they came
        maps/ef/<id>.npy          the score map of an inspection, float16
        incoming/                 what is being written

    A file is written under another name and renamed: it is there whole, or not at all. Files are written and
    deleted in the history's writer alone (`History.in_writer`); any thread may read.
    """

    def __init__(self, folder: Path) -> None:
        self._pictures = folder / "pictures"
        self._maps = folder / "maps"
        self._incoming = folder / "incoming"

    def open(self) -> None:
        """Make the folders, and remove what a killed process has left half-written."""
        shutil.rmtree(self._incoming, ignore_errors=True)
        for folder in (self._pictures, self._maps, self._incoming):
            folder.mkdir(parents=True, exist_ok=True)

    def folders(self) -> list[Path]:
        """The folders of pictures and of maps, each with some of them."""
        return [
            folder for root in (self._pictures, self._maps) for folder in root.iterdir() if folder.is_dir()
        ]

    def is_picture(self, path: Path) -> bool:
        """Whether a file in these folders is a picture."""
        return path.parent.parent == self._pictures and is_image_name(path.name)

    def is_map(self, path: Path) -> bool:
        """Whether a file in these folders is a map."""
        return path.parent.parent == self._maps and re.fullmatch("[0-9a-f-]{36}", path.stem) is not None

    def picture_path(self, sha256: str) -> Path:
        """The path of a picture."""
        return self._pictures / sha256[:2] / sha256

    def map_path(self, identifier: str) -> Path:
        """The path of an inspection's map."""
        # The last digits are random; the first are the time, the same for months.
        return self._maps / identifier[-2:] / f"{identifier}.npy"

    def picture(self, sha256: str) -> bytes | None:
        """The bytes of an upload, or None where they are not there, or are others by now."""
        try:
            data = self.picture_path(sha256).read_bytes()
        except FileNotFoundError:
            return None
        except OSError:
            logger.exception("the picture %s cannot be read", sha256)
            return None
        return data if hashlib.sha256(data).hexdigest() == sha256 else None

    def score_map(self, identifier: str) -> NDArray[np.float32] | None:
        """An inspection's map (h, w), or None where it is not there, or is no map by now."""
        data = self.map_file(identifier)
        return None if data is None else _scores(data).astype(np.float32)

    def map_file(self, identifier: str) -> bytes | None:
        """An inspection's map as NumPy's .npy, or None as `score_map`.

        No sum of it is kept, but what it holds tells whether it is a map still.
        """
        try:
            data = self.map_path(identifier).read_bytes()
            scores = _scores(data)
        except FileNotFoundError:
            return None
        except Exception:  # of a damaged header NumPy makes many kinds
            logger.exception("the map of inspection %s cannot be read", identifier)
            return None
        # A bit that turned makes numbers infinite, which no map is and nobody can draw.
        is_map = scores.dtype == np.float16 and scores.ndim == 2 and scores.size and np.isfinite(scores).all()
        return data if is_map else None

    def store(self, sha256: str, picture: bytes, identifier: str, score_map: bytes) -> None:
        """Write an inspection's files; those that are there already, with these bytes, stay.

        Raises:
            OSError: the disk takes no more. Nothing half-written is left.
        """
        self._write(self.picture_path(sha256), picture)
        self._write(self.map_path(identifier), score_map)

    def _write(self, path: Path, data: bytes) -> None:
        try:
            if path.stat().st_size == len(data) and path.read_bytes() == data:
                return
        except OSError:  # not there, or not to be read: it is replaced
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
