"""The room that uploads leave on a disk."""

import errno
from pathlib import Path

import pytest

from app.registry import free_disk
from app.registry.free_disk import SPARE_BYTES, UPLOADS_LEAVE, expect_room_for_upload


def test_uploads_leave_room_for_inspections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert UPLOADS_LEAVE > SPARE_BYTES
    monkeypatch.setattr(free_disk, "free_bytes", lambda _: UPLOADS_LEAVE + 1000)
    expect_room_for_upload(tmp_path, 1000)
    with pytest.raises(OSError, match="1001 bytes more would leave less") as caught:
        expect_room_for_upload(tmp_path, 1001)
    assert caught.value.errno == errno.ENOSPC
