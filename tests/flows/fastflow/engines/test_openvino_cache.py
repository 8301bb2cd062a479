"""The folder of compiled graphs: what nobody uses any more goes, whatever else lies there stays."""

import logging
import os
import time
from pathlib import Path

import pytest

from flows.fastflow.features import FeatureExtractor

pytest.importorskip("openvino")

from flows.fastflow.engines import openvino_cache
from flows.fastflow.engines.openvino_engine import OpenVinoEngine

DAY = 24 * 3600


def file(path: Path, read_days_ago: float, written_days_ago: float) -> Path:
    """A file as old as asked for."""
    path.write_bytes(b"x")
    now = time.time()
    os.utime(path, (now - read_days_ago * DAY, now - written_days_ago * DAY))
    return path


def test_what_was_neither_read_nor_written_for_long_goes(tmp_path: Path) -> None:
    unused = [file(tmp_path / f"old.{suffix}", 91, 200) for suffix in ("xml", "bin", "blob")]
    kept = [
        file(tmp_path / "read.blob", 89, 400),
        file(tmp_path / "written.bin", 400, 89),
        file(tmp_path / "notes.txt", 400, 400),
    ]
    (tmp_path / "folder.xml").mkdir()
    os.utime(tmp_path / "folder.xml", (0, 0))
    assert openvino_cache.opened(tmp_path) == tmp_path
    assert not any(path.exists() for path in unused)
    assert all(path.exists() for path in kept)
    assert (tmp_path / "folder.xml").is_dir()


def test_reading_keeps_what_is_used(tiny_extractor: FeatureExtractor, tmp_path: Path) -> None:
    """A start reads the graph that it needs; by that the next one knows that it is used."""
    OpenVinoEngine("float32", tmp_path).backbone(tiny_extractor, (64, 64))
    made = sorted(path for path in tmp_path.iterdir() if path.suffix in (".xml", ".bin", ".blob"))
    assert made
    for path in made:
        # Older than a day and than its last change: then reading counts, on volumes that count it once a day.
        os.utime(path, (time.time() - 89 * DAY, time.time() - 88 * DAY))
    before = time.time() - DAY
    OpenVinoEngine("float32", tmp_path).backbone(tiny_extractor, (64, 64))
    assert sorted(path for path in tmp_path.iterdir() if path in made) == made
    if _counts_reading(tmp_path):
        assert all(path.stat().st_atime > before for path in made)


def _counts_reading(folder: Path) -> bool:
    probe = file(folder / "probe", 3, 2)
    probe.read_bytes()
    return probe.stat().st_atime > time.time() - DAY


def test_all_goes_when_asked(tmp_path: Path) -> None:
    file(tmp_path / "new.blob", 0, 0)
    other = file(tmp_path / "notes.txt", 0, 0)
    openvino_cache.clear(tmp_path)
    assert list(tmp_path.iterdir()) == [other]


def test_a_folder_that_cannot_be_made_is_none_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = file(tmp_path / "file", 0, 0) / "folder"
    with caplog.at_level(logging.WARNING):
        assert openvino_cache.opened(blocked) is None
    assert str(blocked) in caplog.text
    assert openvino_cache.opened(None) is None
