"""Files and directories that are written whole or not at all."""

import os
import stat
import threading
import time
from pathlib import Path

import pytest

from flows.fastflow.files.atomic_files import (
    remove_abandoned,
    remove_directory,
    replace_file,
    replacing,
    temporary_directory,
)

DAY = 24 * 3600


@pytest.mark.parametrize("sync", [True, False])
def test_readers_find_the_old_content_or_the_new_one(tmp_path: Path, sync: bool) -> None:
    path, seen, stop = tmp_path / "f", set[bytes](), threading.Event()
    contents = {b"a" * 1000, b"b" * 2000}
    replace_file(path, min(contents), sync=sync)

    def look() -> None:
        while not stop.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=look)
    reader.start()
    for _ in range(50):
        for content in sorted(contents):
            replace_file(path, content, sync=sync)
    stop.set()
    reader.join()
    assert seen <= contents
    assert path.read_bytes() == max(contents)
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_failed_write_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "f"
    replace_file(path, b"old", sync=True)

    def write() -> None:
        with replacing(path, sync=True) as temporary:
            temporary.write_bytes(b"ne")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_temporary_directory_is_hidden_and_removed(tmp_path: Path) -> None:
    with temporary_directory(tmp_path / "models") as folder:
        (folder / "f").touch()
        assert folder.name.startswith(".")
    assert list((tmp_path / "models").iterdir()) == []
    with temporary_directory(tmp_path / "models") as folder:
        folder.rename(tmp_path / "models" / "done")
    assert [p.name for p in (tmp_path / "models").iterdir()] == ["done"]


def test_directory_is_removed_whole(tmp_path: Path) -> None:
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "e" / "f").touch()
    (tmp_path / "link").symlink_to(tmp_path / "d")
    remove_directory(tmp_path / "link")
    assert (tmp_path / "d" / "e" / "f").exists()
    remove_directory(tmp_path / "d")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        remove_directory(tmp_path / "d")


def test_leftovers_of_killed_writers_are_swept_after_a_day(tmp_path: Path) -> None:
    (tmp_path / ".old.part" / "golden").mkdir(parents=True)
    for name in (".young.part", ".keep", "old.part", ".file.part"):
        (tmp_path / name).touch()
    before = time.time() - DAY - 60
    for name in (".old.part", ".keep", "old.part", ".file.part"):
        os.utime(tmp_path / name, (before, before))
    remove_abandoned(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".keep", ".young.part", "old.part"]
    remove_abandoned(tmp_path / "absent")
