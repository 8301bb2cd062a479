import errno
from pathlib import Path

import pytest

from app.registry import free_disk
from app.registry.free_disk import MIN_FREE_AFTER_UPLOAD, MIN_FREE_BYTES, require_room_for_upload


def test_uploads_leave_room_for_inspections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MIN_FREE_AFTER_UPLOAD > MIN_FREE_BYTES
    monkeypatch.setattr(free_disk, "free_bytes", lambda _: MIN_FREE_AFTER_UPLOAD + 1000)
    require_room_for_upload(tmp_path, 1000)
    with pytest.raises(OSError, match="1001 more bytes would leave less") as caught:
        require_room_for_upload(tmp_path, 1001)
    assert caught.value.errno == errno.ENOSPC
