import errno
import os
import shutil
import uuid
from pathlib import Path

import pytest

from app.client.watch.claims import Claims, identity, put_back
from app.client.watch.folder import OWN, Found, Stamp
from tests.app.client.watch.conftest import shut


def found(root: Path, name: str, content: bytes = b"x") -> Found:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return Found(name, path, Stamp.of(path.stat()), 1.0)


def test_a_folder_keeps_what_tells_it_from_others(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = identity(tmp_path / "a")
    assert len(first) == 32
    assert identity(tmp_path / "a") == first
    assert identity(tmp_path / "b") != first


@pytest.mark.parametrize("links", [True, False])
def test_two_that_start_at_once_agree_on_what_tells_a_folder_from_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    other, draw = [], uuid.uuid4

    def overtaken() -> uuid.UUID:
        monkeypatch.setattr(uuid, "uuid4", draw)
        other.append(identity(tmp_path))
        return draw()

    def link(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "as on FAT", source, None, target)

    monkeypatch.setattr(uuid, "uuid4", overtaken)
    if not links:
        monkeypatch.setattr(os, "link", link)
    assert [identity(tmp_path)] == other
    assert [identity(tmp_path)] == other
    assert [path.name for path in (tmp_path / OWN).iterdir()] == ["identity"]


def test_an_identity_that_a_power_cut_has_emptied_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / OWN).mkdir()
    (tmp_path / OWN / "identity").touch()
    made = identity(tmp_path)
    assert len(made) == 32
    assert identity(tmp_path) == made


def test_an_identity_that_is_damaged_is_one_all_the_same(tmp_path: Path) -> None:
    (tmp_path / OWN).mkdir()
    (tmp_path / OWN / "identity").write_bytes(b"\xff\xfe\x00")
    damaged = identity(tmp_path)
    assert identity(tmp_path) == damaged
    assert damaged.encode()
    (tmp_path / OWN / "identity").write_bytes(b"\xfe\xff\x00")
    assert identity(tmp_path) != damaged


@pytest.mark.parametrize("left", ["nothing", "a folder", "an empty file"])
def test_an_identity_that_is_gone_is_written_again(tmp_path: Path, left: str) -> None:
    """A picture whose answer was lost would be inspected a second time under another one."""
    known = identity(tmp_path)
    if left == "an empty file":
        (tmp_path / OWN / "identity").write_bytes(b"")
    else:
        (tmp_path / OWN / "identity").unlink()
    if left == "nothing":
        (tmp_path / OWN).rmdir()
    assert identity(tmp_path, known) == known
    assert identity(tmp_path) == known


def test_another_identity_is_another_folder(tmp_path: Path) -> None:
    there = identity(tmp_path)
    assert identity(tmp_path, "0" * 32) == there


def test_the_folder_of_what_was_taken_is_made_again_but_never_the_root(tmp_path: Path) -> None:
    root = tmp_path / "camera"
    root.mkdir()
    claims = Claims(root, 1.0)
    shutil.rmtree(root / OWN)
    claims.open()
    assert claims.folder.look() == ([], 0)
    shutil.rmtree(root)
    with pytest.raises(FileNotFoundError):
        claims.open()
    assert not root.exists()


@pytest.mark.parametrize("name", ["a.png", "day/cam/a.png"])
def test_nothing_is_taken_where_the_root_is_gone(tmp_path: Path, name: str) -> None:
    root = tmp_path / "camera"
    root.mkdir()
    claims = Claims(root, 1.0)
    one = found(root, name)
    shutil.rmtree(root)
    assert claims.take(one) is None
    assert not root.exists()


def test_what_is_taken_is_out_of_the_cameras_reach(tmp_path: Path) -> None:
    taken = Claims(tmp_path, 0.01).take(found(tmp_path, "sub/a.png", b"one"))
    assert taken is not None
    assert taken.name == "sub/a.png"
    found(tmp_path, "sub/a.png", b"two")
    assert taken.path.read_bytes() == b"one"
    assert taken.path.is_relative_to(tmp_path / OWN)


def test_a_name_that_is_taken_waits(tmp_path: Path) -> None:
    claims = Claims(tmp_path, 1000)
    first = found(tmp_path, "a.png", b"one")
    assert claims.before(first) is None
    taken = claims.take(first)
    assert taken is not None
    assert claims.before(found(tmp_path, "a.png", b"two")) == taken.path
    assert claims.folder.look() == ([], 1)  # it has not settled


def test_what_was_taken_outlasts_the_process(tmp_path: Path) -> None:
    """Whatever names are looked for by then."""
    for name in ("a.png", "b.raw", "c.json", "c.png.overlay.png", "c.png"):
        Claims(tmp_path, 0.0).take(found(tmp_path, name))
    again, waiting = Claims(tmp_path, 0.0).folder.look()
    assert ({one.name for one in again}, waiting) == (
        {"a.png", "b.raw", "c.json", "c.png.overlay.png", "c.png"},
        0,
    )


def test_what_cannot_be_taken_is_said_and_stays(tmp_path: Path, other_disk: Path) -> None:
    (tmp_path / OWN).mkdir()
    (tmp_path / OWN / "taken").symlink_to(other_disk)
    one = found(tmp_path, "a.png", b"one")
    with pytest.raises(OSError, match=r"a\.png") as caught:
        Claims(tmp_path, 1.0).take(one)
    assert caught.value.errno == errno.EXDEV
    assert one.path.read_bytes() == b"one"


def test_what_was_taken_goes_back(tmp_path: Path) -> None:
    put_back(tmp_path)  # there was nothing ever
    claims = Claims(tmp_path, 1.0)
    for name in ("a.png", "day/b.png"):
        claims.take(found(tmp_path, name, name.encode()))
    (tmp_path / "day").rmdir()
    put_back(tmp_path)
    assert (tmp_path / "a.png").read_bytes() == b"a.png"
    assert (tmp_path / "day" / "b.png").read_bytes() == b"day/b.png"
    assert list((tmp_path / OWN / "taken").iterdir()) == []


def test_nothing_goes_back_over_another(tmp_path: Path) -> None:
    claims = Claims(tmp_path, 1.0)
    for name in ("a.png", "b.png"):
        claims.take(found(tmp_path, name, b"first"))
    found(tmp_path, "b.png", b"second")
    with pytest.raises(FileExistsError, match=r"^b\.png: taken") as caught:
        put_back(tmp_path)
    assert "--move-to" in str(caught.value)
    assert (tmp_path / "b.png").read_bytes() == b"second"
    assert not (tmp_path / "a.png").exists()
    assert claims.folder.look() == ([], 2)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_nothing_goes_back_where_some_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """It would be forgotten there."""
    claims = Claims(tmp_path, 1.0)
    for name in ("a.png", "day/b.png"):
        claims.take(found(tmp_path, name))
    shut(monkeypatch, "day", number)
    with pytest.raises(OSError, match=rf"day: {os.strerror(number)}; what was taken"):
        put_back(tmp_path)
    assert not (tmp_path / "a.png").exists()


def test_what_is_gone_or_written_to_is_not_given(tmp_path: Path) -> None:
    claims = Claims(tmp_path, 1000)
    gone, grown = found(tmp_path, "gone.png"), found(tmp_path, "grown.png")
    gone.path.unlink()
    with grown.path.open("ab") as file:
        file.write(b"more")
        file.flush()
        assert claims.take(gone) is None
        assert claims.take(grown) is None
        file.write(b"and more")  # to the file that was taken: it settles there
    assert (tmp_path / OWN / "taken" / "grown.png").read_bytes() == b"xmoreand more"


def test_empty_folders_are_removed(tmp_path: Path) -> None:
    claims = Claims(tmp_path, 1.0)
    taken = [claims.take(found(tmp_path, name)) for name in ("day1/cam/a.png", "day1/b.png")]
    whole = [one for one in taken if one is not None]
    whole[0].path.unlink()
    claims.tidy(whole[0])
    assert not whole[0].path.parent.exists()
    assert whole[1].path.exists()
    whole[1].path.unlink()
    claims.tidy(whole[1])
    assert (tmp_path / OWN / "taken").exists()
    assert not (tmp_path / OWN / "taken" / "day1").exists()
