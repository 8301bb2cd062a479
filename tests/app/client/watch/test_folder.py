import os
from pathlib import Path

import pytest

from app.client.watch.folder import PATTERNS, Folder


class Clock:
    """Stands still unless it is told otherwise."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def names(folder: Folder) -> list[str]:
    return [found.name for found in folder.look()[0]]


def write(path: Path, content: bytes = b"x", modified: int | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if modified is not None:
        os.utime(path, ns=(modified, modified))


def test_a_file_that_grows_is_waited_for(tmp_path: Path, clock: Clock) -> None:
    folder = Folder(tmp_path, PATTERNS, 1.0, clock)
    for step in range(4):
        write(tmp_path / "a.png", b"x" * (step + 1))
        assert folder.look() == ([], 1)
        clock.now += 0.9
    clock.now += 0.1
    [found], unsettled = folder.look()
    assert (found.name, found.path, found.stamp.size, unsettled) == ("a.png", tmp_path / "a.png", 4, 0)
    assert found.quiet == 1.0


@pytest.mark.parametrize("change", ["time", "content", "another file"])
def test_what_changes_is_waited_for_again(tmp_path: Path, clock: Clock, change: str) -> None:
    folder = Folder(tmp_path, PATTERNS, 1.0, clock)
    write(tmp_path / "a.png", b"one", 10**18)
    folder.look()
    clock.now += 1
    assert names(folder) == ["a.png"]
    if change == "time":
        os.utime(tmp_path / "a.png", ns=(10**18 + 1, 10**18 + 1))
    elif change == "content":
        write(tmp_path / "a.png", b"longer", 10**18)
    else:
        write(tmp_path / "b", b"two", 10**18)
        (tmp_path / "b").replace(tmp_path / "a.png")
    assert folder.look() == ([], 1)
    clock.now += 1
    assert names(folder) == ["a.png"]


def test_an_empty_file_is_never_whole(tmp_path: Path, clock: Clock) -> None:
    folder = Folder(tmp_path, PATTERNS, 1.0, clock)
    write(tmp_path / "a.png", b"")
    folder.look()
    clock.now += 1000
    assert folder.look() == ([], 1)


def test_which_names_are_looked_for(tmp_path: Path, clock: Clock) -> None:
    wanted = ["a.PNG", "b.Jpeg", "sub/deeper/c.tiff"]
    others = ["a.png.json", "a.png.overlay.png", ".d.png", ".hidden/e.png", "notes.txt", "png"]
    for name in (*wanted, *others):
        write(tmp_path / name, modified=10**18)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "a.PNG")
    folder = Folder(tmp_path, PATTERNS, 1.0, clock)
    folder.look()
    clock.now += 1
    assert names(folder) == wanted
    special = Folder(tmp_path, ["cam*_top.raw", "NOTES.*"], 1.0, clock)
    write(tmp_path / "cam1_top.raw", modified=10**18)
    special.look()
    clock.now += 1
    assert names(special) == ["cam1_top.raw", "notes.txt"]


def test_the_oldest_come_first(tmp_path: Path, clock: Clock) -> None:
    for name, age in (("b.png", 2), ("a.png", 3), ("c.png", 1), ("d.png", 1)):
        write(tmp_path / name, modified=10**18 - age)
    folder = Folder(tmp_path, PATTERNS, 1.0, clock)
    folder.look()
    clock.now += 1
    assert names(folder) == ["a.png", "b.png", "c.png", "d.png"]


def test_what_is_gone_is_forgotten(tmp_path: Path, clock: Clock) -> None:
    folder = Folder(tmp_path, PATTERNS, 1.0, clock)
    write(tmp_path / "a.png", modified=10**18)
    kept = (tmp_path / "a.png").rename(tmp_path / "a.kept")
    kept.rename(tmp_path / "a.png")
    folder.look()
    (tmp_path / "a.png").rename(tmp_path / "a.kept")
    clock.now += 1
    assert folder.look() == ([], 0)
    (tmp_path / "a.kept").rename(tmp_path / "a.png")  # the same file again, seen for the first time
    assert folder.look() == ([], 1)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="absent"):
        Folder(tmp_path / "absent", PATTERNS, 1.0).look()
