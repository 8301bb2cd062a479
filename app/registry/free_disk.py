"""Disk space that is reserved for inspections."""

import errno
import shutil
from pathlib import Path
from typing import Final

# With less free space inspections are refused: the writer needs space before it frees the journal's, and the
# database grows.
MIN_FREE_BYTES: Final = 128 * 2**20
# Uploads must leave more, so that inspections continue while somebody frees space.
MIN_FREE_AFTER_UPLOAD: Final = 2 * MIN_FREE_BYTES


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def require_room_for_upload(folder: Path, size: int) -> None:
    """Raise ENOSPC, as a full disk does, if an upload would leave too little free space."""
    if free_bytes(folder) < size + MIN_FREE_AFTER_UPLOAD:
        raise OSError(errno.ENOSPC, f"{size} more bytes would leave less than {MIN_FREE_AFTER_UPLOAD} free")
