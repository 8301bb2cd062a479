import hashlib
import io
from pathlib import Path

import numpy as np
import pytest

from app.database import clock
from app.history.inspection_files import InspectionFiles
from tests.app.history.rows import store_files

IMAGE = b"the bytes of an upload"
SHA256 = hashlib.sha256(IMAGE).hexdigest()
SCORES = np.arange(24, dtype=np.float16).reshape(4, 6)


def encoded(scores: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bytes:
    file = io.BytesIO()
    np.save(file, scores, allow_pickle=False)
    return file.getvalue()


@pytest.fixture
def store(tmp_path: Path) -> InspectionFiles:
    store = InspectionFiles(tmp_path)
    store.open()
    return store


@pytest.fixture
def identifier(store: InspectionFiles) -> str:
    identifier = clock.new_id()
    store_files(store, SHA256, IMAGE, identifier, encoded(SCORES))
    return identifier


def test_stored_files_are_readable(store: InspectionFiles, identifier: str) -> None:
    assert store.read_image(SHA256) == IMAGE
    scores = store.read_score_map(identifier)
    assert scores is not None
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, SCORES)


def test_missing_files_are_none(store: InspectionFiles) -> None:
    assert store.read_image(SHA256) is None
    assert store.read_score_map(clock.new_id()) is None


@pytest.mark.parametrize("found", [b"", IMAGE[:-1], IMAGE + b" ", b"x" * len(IMAGE)])
def test_image_with_other_bytes_is_none(store: InspectionFiles, identifier: str, found: bytes) -> None:
    store.image_path(SHA256).write_bytes(found)
    assert store.read_image(SHA256) is None
    store_files(store, SHA256, IMAGE, identifier, encoded(SCORES))
    assert store.read_image(SHA256) == IMAGE


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
def test_damaged_map_is_none(store: InspectionFiles, identifier: str, found: bytes) -> None:
    store.map_path(identifier).write_bytes(found)
    assert store.read_score_map(identifier) is None


def test_directory_in_place_of_a_file_is_none(store: InspectionFiles, identifier: str) -> None:
    for path in (store.image_path(SHA256), store.map_path(identifier)):
        path.unlink()
        path.mkdir()
    assert store.read_image(SHA256) is None
    assert store.read_score_map(identifier) is None
