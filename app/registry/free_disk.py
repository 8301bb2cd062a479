"""Room on disks that inspections need, and that nothing else may take."""

import errno
import shutil
from pathlib import Path
from typing import Final

# Below it inspections are refused: filing takes room before it gives the journal's back, and the database
# grows too.
SPARE_BYTES: Final = 128 * 2**20
# What comes in beside them leaves more: they go on while somebody makes room.
UPLOADS_LEAVE: Final = 2 * SPARE_BYTES


def free_bytes(folder: Path) -> int:
    """Bytes that are free on a folder's disk."""
    return shutil.disk_usage(folder).free


def expect_room_for_upload(folder: Path, size: int) -> None:
    """Raise ENOSPC, as a full disk does, for what would leave less than UPLOADS_LEAVE on a folder's disk."""
    if free_bytes(folder) < size + UPLOADS_LEAVE:
        raise OSError(errno.ENOSPC, f"{size} bytes more would leave less than {UPLOADS_LEAVE}")
