import os
from pathlib import Path

import pytest

from app.client.watch.folder import PATTERNS, Folder
from tests.app.client.conftest import Clock
from tests.app.client.watch.conftest import shut
from tests.support.rights import without_roots_rights


@pytest.fixture
def clock() -> Clock:
    return Clock()


def names(folder: Folder) -> list[str]:
    return [found.name for found in folder.look()[0]]


def said(folder: Folder) -> dict[str, str]:
    return {path: str(error.strerror) for path, error in folder.closed.items()}


def write(path: Path, content: bytes = b"x", modified: int | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if modified is not None:
        os.utime(path, ns=(modified, modified))


def test_growing_file_is_waited_for(tmp_path: Path, clock: Clock) -> None:
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
def test_changed_file_is_waited_for_again(tmp_path: Path, clock: Clock, change: str) -> None:
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


def test_empty_file_waits_ten_times_as_long(tmp_path: Path, clock: Clock) -> None:
    folder = Folder(tmp_path, PATTERNS, 1.0, clock)
    write(tmp_path / "a.png", b"")
    folder.look()
    clock.now += 9.9
    assert folder.look() == ([], 1)
    clock.now += 0.1
    assert names(folder) == ["a.png"]


def test_names_are_matched_by_patterns(tmp_path: Path, clock: Clock) -> None:
    wanted = ["a.PNG", "b.Jpeg", "note.overlay.png", "sub/deeper/c.tiff"]
    others = ["a.PNG.json", "a.PNG.overlay.png", "gone.png.overlay.png", "notes.txt", "png"]
    others += [".d.png", ".hidden/e.png", "lost+found/f.png"]
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


def test_unreadable_folder_delays_no_other(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "locked/b.png", "z/c.png"):
        write(tmp_path / name, modified=10**18)
    tmp_path.chmod(0o755)
    (tmp_path / "locked").chmod(0)
    monkeypatch.chdir(tmp_path)  # what is above it may be root's alone
    folder = Folder(Path(), PATTERNS, 1.0, clock)
    with without_roots_rights():
        folder.look()
        clock.now += 1
        assert names(folder) == ["a.png", "z/c.png"]
    assert said(folder) == {"./locked": "Permission denied"}
    (tmp_path / "locked").chmod(0o755)
    folder.look()
    assert folder.closed == {}


def test_watched_folder_itself_is_not_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shut(monkeypatch, tmp_path.name)
    with pytest.raises(OSError, match=tmp_path.name):
        Folder(tmp_path, PATTERNS, 1.0).look()


def test_the_oldest_come_first(tmp_path: Path, clock: Clock) -> None:
    for name, age in (("b.png", 2), ("a.png", 3), ("c.png", 1), ("d.png", 1)):
        write(tmp_path / name, modified=10**18 - age)
    folder = Folder(tmp_path, PATTERNS, 1.0, clock)
    folder.look()
    clock.now += 1
    assert names(folder) == ["a.png", "b.png", "c.png", "d.png"]
