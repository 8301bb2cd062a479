"""What is free on a disk, and what uploads leave of it."""

import errno
import os
from pathlib import Path

import pytest

from app import free_disk
from app.free_disk import SPARE_BYTES, UPLOADS_LEAVE, expect_room_for_upload, free_bytes


def test_is_what_others_say(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    assert abs(free_bytes(tmp_path) - disk.f_bavail * disk.f_frsize) < 2**30  # others write meanwhile


def test_uploads_leave_more_than_inspections_need() -> None:
    assert UPLOADS_LEAVE > SPARE_BYTES


def test_to_the_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_disk, "free_bytes", lambda _: UPLOADS_LEAVE + 1000)
    expect_room_for_upload(tmp_path, 1000)
    with pytest.raises(OSError, match="1001 bytes more would leave less") as caught:
        expect_room_for_upload(tmp_path, 1001)
    assert caught.value.errno == errno.ENOSPC


def test_of_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        expect_room_for_upload(tmp_path / "none", 0)
