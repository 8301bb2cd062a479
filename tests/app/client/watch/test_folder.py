import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.client.watch.folder import PATTERNS, Folder, why
from tests.app.client.watch.conftest import shut
from tests.rights import without_roots_rights


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


def said(folder: Folder) -> dict[str, str]:
    return {path: why(error) for path, error in folder.closed.items()}


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


def test_an_empty_file_is_waited_for_ten_times_as_long(tmp_path: Path, clock: Clock) -> None:
    folder = Folder(tmp_path, PATTERNS, 1.0, clock)
    write(tmp_path / "a.png", b"")
    folder.look()
    clock.now += 9.9
    assert folder.look() == ([], 1)
    clock.now += 0.1
    assert names(folder) == ["a.png"]


def test_which_names_are_looked_for(tmp_path: Path, clock: Clock) -> None:
    wanted = ["a.PNG", "b.Jpeg", "sub/deeper/c.tiff"]
    others = ["a.PNG.json", "a.PNG.overlay.png", ".d.png", ".hidden/e.png", "notes.txt", "png"]
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


def test_links_that_may_have_been_meant_are_told(tmp_path: Path, clock: Clock) -> None:
    root = tmp_path / "camera"
    write(tmp_path / "elsewhere" / "a.png")
    for name, target in {
        "sub": "../elsewhere",
        "a.png": "../elsewhere/a.png",
        "broken.jpg": "../elsewhere/gone.jpg",
        "notes.txt": "../elsewhere/a.png",
        ".hidden.png": "../elsewhere/a.png",
        "b.png.overlay.png": "../elsewhere/a.png",
    }.items():
        write(root / "b.png")
        (root / name).symlink_to(target)
    folder = Folder(root, PATTERNS, 1.0, clock)
    for _ in range(2):
        folder.look()
        clock.now += 1
    assert names(folder) == ["b.png"]
    assert set(folder.links) == {str(root / name) for name in ("sub", "a.png", "broken.jpg")}
    assert set(map(why, folder.links.values())) == {"a symbolic link, which is not followed"}
    assert folder.closed == {}
    (root / "a.png").unlink()
    folder.look()
    assert str(root / "a.png") not in folder.links


def test_links_to_what_is_looked_at_anyway_are_not_told(tmp_path: Path, clock: Clock) -> None:
    for name in ("camera/2026-11-29/a.png", "camera/.hidden/b.png", "camera/c.raw"):
        write(tmp_path / name)
    root = tmp_path / "link-to-camera"
    root.symlink_to("camera")
    harmless = {"latest": "2026-11-29", "all": ".", "last.png": "2026-11-29/a.png", "next.png": "next/z.png"}
    for name, target in {**harmless, "hidden": ".hidden", "c.png": "c.raw"}.items():
        (root / name).symlink_to(target)
    folder = Folder(root, PATTERNS, 1.0, clock)
    folder.look()
    assert set(folder.links) == {str(root / "hidden"), str(root / "c.png")}
    clock.now += 1
    assert names(folder) == ["2026-11-29/a.png"]


def test_a_link_is_followed_once_as_long_as_it_is_the_same(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share that is mounted hard does not answer while it is away, and would hold up the others."""
    root, elsewhere = tmp_path / "camera", tmp_path / "elsewhere"
    root.mkdir()
    elsewhere.mkdir()
    (root / "sub").symlink_to(elsewhere)
    folder = Folder(root, PATTERNS, 1.0, clock)
    folder.look()
    with monkeypatch.context() as away:
        for name in ("isdir", "realpath"):
            away.setattr(os.path, name, lambda *_, **__: pytest.fail("it would hang"))
        folder.look()
        assert set(folder.links) == {str(root / "sub")}
    (root / "new").symlink_to(root)
    (root / "new").replace(root / "sub")
    folder.look()
    assert folder.links == {}


def test_what_is_written_beside_pictures_is_none(tmp_path: Path, clock: Clock) -> None:
    pictures = ["a.png", "cam.overlay.png", "left.png.overlay.png"]
    # Of b.png, which was removed, the JSON is left.
    outcomes = ["a.png.json", "a.png.overlay.png", "b.png.json", "b.png.overlay.png"]
    for name in (*pictures, *outcomes):
        write(tmp_path / name, modified=10**18)
    for patterns in (PATTERNS, ["*"]):
        folder = Folder(tmp_path, patterns, 1.0, clock)
        folder.look()
        clock.now += 1
        assert names(folder) == pictures
    # Where pictures are moved nothing is written beside them, but it was before they were.
    write(tmp_path / "c.png", modified=10**18)
    write(tmp_path / "c.png.overlay.png", modified=10**18)  # the camera's own: no JSON tells of it
    folder = Folder(tmp_path, ["*"], 1.0, clock, beside=False)
    folder.look()
    clock.now += 1
    cameras = ["c.png", "c.png.overlay.png"]
    assert names(folder) == sorted([*pictures, "a.png.json", "b.png.json", *cameras])


def test_a_folder_that_cannot_be_read_holds_up_no_other(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "lost+found/b.png", "z/c.png"):
        write(tmp_path / name, modified=10**18)
    tmp_path.chmod(0o755)
    (tmp_path / "lost+found").chmod(0)
    monkeypatch.chdir(tmp_path)  # what is above it may be root's alone
    folder = Folder(Path(), PATTERNS, 1.0, clock)
    with without_roots_rights():
        folder.look()
        clock.now += 1
        assert names(folder) == ["a.png", "z/c.png"]
    assert said(folder) == {"./lost+found": "Permission denied"}
    (tmp_path / "lost+found").chmod(0o755)
    folder.look()
    assert folder.closed == {}


BROKEN = [errno.EIO, errno.EHOSTDOWN, errno.ENOTCONN, errno.ESTALE, errno.ETIMEDOUT]


@pytest.mark.parametrize("number", BROKEN)
def test_a_share_that_is_away_holds_up_no_other_folder(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    for name in ("a.png", "line-2/b.png", "z/c.png"):
        write(tmp_path / name, modified=10**18)
    folder = Folder(tmp_path, PATTERNS, 1.0, clock)
    with monkeypatch.context() as away:
        shut(away, "line-2", number)
        folder.look()
        clock.now += 1
        assert names(folder) == ["a.png", "z/c.png"]
    assert said(folder) == {str(tmp_path / "line-2"): os.strerror(number)}
    folder.look()
    clock.now += 1
    assert names(folder) == ["a.png", "line-2/b.png", "z/c.png"]
    assert folder.closed == {}


@pytest.mark.parametrize("number", BROKEN)
def test_the_folder_itself_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    shut(monkeypatch, tmp_path.name, number)
    with pytest.raises(OSError, match=tmp_path.name) as caught:
        Folder(tmp_path, PATTERNS, 1.0).look()
    assert caught.value.errno == number


class Listed:
    """An entry of a listing, of which parts can be replaced."""

    def __init__(self, entry: "os.DirEntry[str]") -> None:
        self._entry = entry

    def __getattr__(self, name: str) -> Any:
        return getattr(self._entry, name)


class Untold(Listed):
    """An entry of which the listing does not tell what it is, and asking fails."""

    def is_dir(self, **_: bool) -> bool:
        raise OSError(errno.EIO, os.strerror(errno.EIO), self._entry.path)


class WithoutInode(Listed):
    """An entry as on Windows, whose listings know no inode."""

    def stat(self, **options: bool) -> SimpleNamespace:
        status = self._entry.stat(**options)
        return SimpleNamespace(st_size=status.st_size, st_mtime_ns=status.st_mtime_ns, st_ino=0)


def list_as(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[Iterator["os.DirEntry[str]"]], Iterable[object]]
) -> None:
    scandir = os.scandir

    @contextmanager
    def changed(path: Path) -> Iterator[Iterable[object]]:
        with scandir(path) as entries:
            yield change(entries)

    monkeypatch.setattr(os, "scandir", changed)


def test_of_a_listing_that_breaks_off_nothing_is_taken(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An overlay without the picture that it was drawn from would count as a picture."""
    for name in ("a.png", "line-2/b.png", "line-2/b.png.json", "line-2/b.png.overlay.png"):
        write(tmp_path / name, modified=10**18)

    def break_off(entries: Iterator["os.DirEntry[str]"]) -> Iterator[object]:
        for entry in sorted(entries, key=lambda entry: entry.name, reverse=True):
            if entry.name == "b.png.json":
                raise OSError(errno.EIO, os.strerror(errno.EIO), entry.path)
            yield entry

    list_as(monkeypatch, break_off)
    folder = Folder(tmp_path, PATTERNS, 1.0, clock)
    folder.look()
    clock.now += 1
    assert names(folder) == ["a.png"]
    assert said(folder) == {str(tmp_path / "line-2"): os.strerror(errno.EIO)}


@pytest.mark.parametrize("listed", [True, False])
def test_one_of_which_nothing_is_to_be_had_holds_up_no_other(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, listed: bool
) -> None:
    lstat = Path.lstat

    def fail(path: Path) -> os.stat_result:
        if path.name == "bad.png":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return lstat(path)

    for name in ("a.png", "bad.png", "c.png"):
        write(tmp_path / name, modified=10**18)
    if listed:  # as what it is, so that only its size and time are asked for
        monkeypatch.setattr(Path, "lstat", fail)
    else:
        list_as(
            monkeypatch, lambda entries: (Untold(one) if one.name == "bad.png" else one for one in entries)
        )
    folder = Folder(tmp_path, PATTERNS, 1.0, clock)
    folder.look()
    clock.now += 1
    assert names(folder) == ["a.png", "c.png"]
    assert said(folder) == {str(tmp_path / "bad.png"): os.strerror(errno.EIO)}


def test_what_a_listing_knows_no_inode_of_is_read(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.png", b"one")
    list_as(monkeypatch, lambda entries: map(WithoutInode, entries))
    folder = Folder(tmp_path, PATTERNS, 1.0, clock)
    folder.look()
    clock.now += 1
    [found], _ = folder.look()
    assert found.read() == b"one"


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
