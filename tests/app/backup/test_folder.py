import os
import stat
from pathlib import Path

from app.backup.folder import BackupFolder


def test_a_folder_that_is_made_is_for_its_user_alone(tmp_path: Path) -> None:
    """Pictures, and hashes of keys; what was there before is as somebody made it."""
    before = os.umask(0o022)
    try:
        folder = BackupFolder(tmp_path / "disk" / "backup")
        folder.make()
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
