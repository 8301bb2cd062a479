import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.database import clock
from app.history.inspection_files import FORMATS, InspectionFiles, detect_format

PICTURE = b"the bytes of an upload"
SHA256 = hashlib.sha256(PICTURE).hexdigest()
SCORES = np.arange(24, dtype=np.float16).reshape(4, 6)


def encoded(scores: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bytes:
    file = io.BytesIO()
    np.save(file, scores, allow_pickle=False)
    return file.getvalue()


@pytest.fixture
def pictures(tmp_path: Path) -> InspectionFiles:
    pictures = InspectionFiles(tmp_path)
    pictures.open()
    return pictures


@pytest.fixture
def identifier(pictures: InspectionFiles) -> str:
    """An inspection whose files are there."""
    identifier = clock.new_id()
    pictures.store(SHA256, PICTURE, identifier, encoded(SCORES))
    return identifier


def test_what_is_stored_is_there(pictures: InspectionFiles, identifier: str) -> None:
    assert pictures.picture(SHA256) == PICTURE
    scores = pictures.score_map(identifier)
    assert scores is not None
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, SCORES)


def test_what_is_not_there_is_none(pictures: InspectionFiles) -> None:
    assert pictures.picture(SHA256) is None
    assert pictures.score_map(clock.new_id()) is None


@pytest.mark.parametrize("found", [b"", PICTURE[:-1], PICTURE + b" ", b"x" * len(PICTURE)])
def test_a_picture_with_other_bytes_is_none(pictures: InspectionFiles, identifier: str, found: bytes) -> None:
    pictures.picture_path(SHA256).write_bytes(found)
    assert pictures.picture(SHA256) is None
    pictures.store(SHA256, PICTURE, identifier, encoded(SCORES))  # and is mended when it comes again
    assert pictures.picture(SHA256) == PICTURE


@pytest.mark.parametrize(
    "found",
    [
        b"",
        b"\x93NUMPY\1\0",
        encoded(SCORES)[:-1],
        encoded(np.zeros((2, 3, 4), np.float16)),
        encoded(np.zeros((4, 6), np.float64)),
        encoded(np.zeros((0, 6), np.float16)),
        encoded(np.full((4, 6), np.inf, np.float16)),
        encoded(SCORES).replace(b"(4, 6)", b"(4, 9)"),
        encoded(SCORES).replace(b"shape", b"shap\xff"),
    ],
)
def test_a_map_that_is_none_any_more_is_none(
    pictures: InspectionFiles, identifier: str, found: bytes
) -> None:
    pictures.map_path(identifier).write_bytes(found)
    assert pictures.score_map(identifier) is None


def test_something_else_in_a_files_place_is_none(pictures: InspectionFiles, identifier: str) -> None:
    for path in (pictures.picture_path(SHA256), pictures.map_path(identifier)):
        path.unlink()
        path.mkdir()
    assert pictures.picture(SHA256) is None
    assert pictures.score_map(identifier) is None


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp"])
def test_formats_follow_the_content(suffix: str) -> None:
    file = io.BytesIO()
    name = {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix)
    Image.new("RGB", (8, 8)).save(file, name)
    found = detect_format(file.getvalue()[:16])
    assert found == (f"image/{name}", suffix)
    assert found in FORMATS
