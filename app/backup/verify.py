"""Checking that a snapshot can be restored."""

from app.backup.folder import BackupFolder
from flows.fastflow.plain_files import FileError, file_hashes


def verify(folder: BackupFolder, name: str) -> list[str]:
    """Read every file of a snapshot and compare it with its sha256.

    Returns:
        What is missing or damaged, a sentence each.

    Raises:
        BackupError: the snapshot itself cannot be read.
    """
    faults = []
    for sha256, path in folder.lines(name):
        place = folder.object_path(sha256)
        try:
            [found] = file_hashes([place])
        except FileError:
            found = ""
        if found != sha256:
            faults.append(f"{path} is missing or damaged: {place}")
    return faults
