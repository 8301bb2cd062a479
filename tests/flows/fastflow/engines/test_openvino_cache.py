"""The folder of compiled graphs: what no version uses any more goes, whatever else lies there stays."""

import logging
import os
import time
from pathlib import Path

import pytest

pytest.importorskip("openvino")

from flows.fastflow.engines import openvino_cache
from flows.fastflow.engines.openvino_cache import of_this_version

DAY = 24 * 3600


def age(path: Path, days: float) -> Path:
    """Let a path have changed so long ago."""
    os.utime(path, 2 * (time.time() - days * DAY,))
    return path


def kept_by(folder: Path, name: str, days: float) -> Path:
    """What a version kept, and was last started so long ago."""
    place = folder / name
    place.mkdir()
    for file in ("net-0123.xml", "net-0123.bin", "456.blob"):
        (place / file).write_bytes(b"x")
    return age(place, days)


def test_what_no_start_has_used_for_long_goes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    unused, recent = kept_by(tmp_path, "openvino-2024.1", 91), kept_by(tmp_path, "openvino-2025.1", 89)
    others = [kept_by(tmp_path, name, 400) for name in ("models", "openvino-notebooks")]
    others.append(kept_by(tmp_path, "openvino-2023.1-mine", 400))
    (others[-1] / "work").mkdir()
    age(others[-1], 400)
    for name in ("model.xml", "model.bin", "1234.blob", "openvino-notes.txt"):
        (tmp_path / name).write_bytes(b"x")
        others.append(age(tmp_path / name, 400))
    elsewhere = kept_by(tmp_path.parent, f"{tmp_path.name}-elsewhere", 400)
    (tmp_path / "openvino-link").symlink_to(elsewhere)
    with caplog.at_level(logging.INFO, "flowgauge.openvino"):
        place = openvino_cache.opened(tmp_path)
    assert place == of_this_version(tmp_path)
    assert not unused.exists()
    assert [str(unused) in line for line in caplog.messages] == [True]
    assert all(path.exists() for path in (recent, *others, elsewhere / "456.blob"))
    assert len(list(recent.iterdir())) == 3


def test_what_this_start_uses_stays_however_long_ago_the_last_was(tmp_path: Path) -> None:
    place = kept_by(tmp_path, of_this_version(tmp_path).name, 400)
    for path in place.iterdir():
        age(path, 400)
    assert openvino_cache.opened(tmp_path) == place
    assert len(list(place.iterdir())) == 3
    # Nor does another version delete it, which starts right after.
    assert place.stat().st_mtime > time.time() - DAY


def test_all_of_this_version_goes_when_asked(tmp_path: Path) -> None:
    place = kept_by(tmp_path, of_this_version(tmp_path).name, 0)
    (place / "notes.txt").touch()
    other = kept_by(tmp_path, "openvino-2025.1", 0)
    openvino_cache.clear(place)
    assert list(place.iterdir()) == [place / "notes.txt"]
    assert len(list(other.iterdir())) == 3


def test_a_folder_that_cannot_be_made_is_none_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    blocked = tmp_path / "file" / "folder"
    with caplog.at_level(logging.WARNING):
        assert openvino_cache.opened(blocked) is None
    assert str(blocked) in caplog.text
    assert openvino_cache.opened(None) is None
