"""A backup's disk that takes no more: old snapshots go, and what is said names that disk."""

import errno
import shutil
from pathlib import Path
from typing import Any

import pytest

from app.backup import copying
from app.backup import folder as module
from app.backup.folder import BackupError
from app.backup.taking import take
from app.backup.verifying import verify
from tests.app.backup.conftest import Plant


class Disk:
    """Room for so many databases of snapshots; a copy of a further one fails, as on a full disk."""

    def __init__(self, snapshots: Path, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.snapshots, self.room = snapshots, room
        self.number = errno.ENOSPC
        monkeypatch.setattr(module, "copy_whole", self)

    def __call__(self, source: Path, target: Path) -> None:
        if len(list(self.snapshots.glob("[0-9]*"))) >= self.room:
            raise OSError(self.number, "No space left on device", str(target))
        copying.copy_whole(source, target)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_old_snapshots_can_go_where_there_is_no_room_for_a_copy(
    plant: Plant, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    names = [take(plant.settings, plant.folder).name for _ in range(3)]
    disk = Disk(plant.folder.snapshots, 3, monkeypatch)
    disk.number = number
    assert plant.folder.prune(2) == names[:1]
    assert plant.folder.names() == names[1:]
    assert all(verify(plant.folder, name) == [] for name in names[1:])


def test_what_stays_needs_room_itself(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [take(plant.settings, plant.folder).name for _ in range(3)]
    Disk(plant.folder.snapshots, 1, monkeypatch)
    with pytest.raises(OSError, match="No space left"):
        plant.folder.prune(3)  # nothing is to go
    assert plant.folder.names() == names
    with pytest.raises(OSError, match="No space left"):
        plant.folder.prune(1)
    assert plant.folder.names() == names[2:]


def test_where_what_stays_is_damaged_nothing_goes(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [take(plant.settings, plant.folder).name for _ in range(2)]
    database = plant.folder.database_path(names[1])
    database.write_bytes(database.read_bytes()[:-4096])
    disk = Disk(plant.folder.snapshots, 2, monkeypatch)
    with pytest.raises(BackupError, match=rf"{names[1]} is damaged: nothing was deleted"):
        plant.folder.prune(1)
    assert plant.folder.names() == names
    disk.room = 3
    assert verify(plant.folder, names[0]) == []


def test_no_folder_is_made_to_delete_one(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk that is full to the last block there is no room for one."""
    names = [take(plant.settings, plant.folder).name for _ in range(2)]

    def full(path: str, *_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", path)

    with monkeypatch.context() as patch:
        patch.setattr("os.mkdir", full)
        plant.folder._remove(names[:1])
    assert [path.name for path in plant.folder.snapshots.iterdir()] == names[1:]


def test_another_failure_deletes_nothing(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [take(plant.settings, plant.folder).name for _ in range(2)]
    Disk(plant.folder.snapshots, 2, monkeypatch).number = errno.EIO
    with pytest.raises(OSError):  # noqa: PT011 - whatever it says
        plant.folder.prune(1)
    assert plant.folder.names() == names


def test_a_copy_that_finds_no_room_names_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    source, target = tmp_path / "source", tmp_path / "backup" / "target"
    source.write_bytes(b"picture")
    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="No space left") as caught:
        copying.copy_file(source, target)
    assert caught.value.filename == str(target)
    assert list(target.parent.iterdir()) == []
    with pytest.raises(OSError, match="No space left") as caught:
        copying.copy_whole(source, target)
    assert caught.value.filename == str(target)
    with pytest.raises(FileNotFoundError) as missing:
        copying.copy_whole(tmp_path / "none", target)
    assert missing.value.filename == str(tmp_path / "none")


@pytest.mark.parametrize("name", ["lost+found", "System Volume Information"])
def test_a_fresh_disk_is_empty(tmp_path: Path, name: str) -> None:
    (tmp_path / "disk" / name).mkdir(parents=True)
    module.BackupFolder(tmp_path / "disk").make()
    assert module.BackupFolder(tmp_path / "disk").names() == []
