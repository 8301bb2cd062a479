"""Folders that go and come: a share that is mounted after the start, and what somebody tidies up.

Here another folder is renamed into the place of the one that was there, which looks the same from above it.
"""

import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from app.client import Client
from app.client.watch import watcher as module
from app.client.watch.claims import Claims, identity, put_back
from app.client.watch.folder import OWN, Found, Stamp
from app.client.watch.watcher import Watcher
from tests.app.client.watch.conftest import Heard, ids, job, once, watching
from tests.waiting import eventually

Images = dict[str, list[bytes]]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LONGEST_SECONDS", 0.1)


def mount(share: Path, folder: Path) -> None:
    """Put a share over a folder."""
    folder.rename(folder.with_name("below"))
    share.rename(folder)


@pytest.fixture
def share(tmp_path: Path) -> Path:
    (tmp_path / "share").mkdir()
    return tmp_path / "share"


@pytest.mark.parametrize("how", ["empty folders", "all that is ours", "a mount"])
def test_pictures_are_moved_after_the_folder_of_those_taken_is_gone(
    client: Client, folder: Path, share: Path, tmp_path: Path, tiny_images: Images, how: str
) -> None:
    first, second = tiny_images["good"][:2]
    (folder / "a.png").write_bytes(first)
    out = tmp_path / "out"
    with watching(client, job(folder, f"gone by {how}", move_to=out)) as heard:
        eventually(lambda: len(heard.outcomes) == 1)
        match how:
            case "empty folders":
                subprocess.run(
                    ["find", folder, "-mindepth", "1", "-type", "d", "-empty", "-delete"],
                    check=True,
                )
            case "all that is ours":
                shutil.rmtree(folder / OWN)
            case _:
                mount(share, folder)
        (folder / "b.png").write_bytes(second)
        eventually(lambda: len(heard.outcomes) == 2)
    assert len(set(ids(heard))) == 2
    assert sorted(path.name for path in out.glob("*.png")) == ["a.png", "b.png"]


@pytest.mark.parametrize("known", [True, False], ids=["watched before", "new"])
@pytest.mark.parametrize("moved", [True, False], ids=["moved", "left"])
def test_a_picture_of_a_share_that_was_mounted_late_is_inspected_once(
    client: Client, folder: Path, share: Path, tmp_path: Path, tiny_images: Images, known: bool, moved: bool
) -> None:
    """The watcher is killed between the answer and the JSON, and starts again."""
    picture, station = tiny_images["good"][0], f"late-{known}-{moved}"
    out = tmp_path / "out" if moved else None
    if known:
        identity(share)
    with watching(client, job(folder, station, move_to=out)) as heard:
        mount(share, folder)
        (folder / "a.png").write_bytes(picture)
        eventually(lambda: bool(heard.outcomes))
    if out is None:
        (folder / "a.png.json").unlink()
    else:
        shutil.rmtree(out)
        (folder / "a.png").write_bytes(picture)
    again, complete = once(client, job(folder, station, move_to=out))
    assert (complete, ids(again)) == (True, ids(heard))


def test_a_picture_is_inspected_once_though_what_tells_its_folder_is_wiped(
    client: Client, folder: Path, tiny_images: Images
) -> None:
    (folder / "a.png").write_bytes(tiny_images["good"][0])
    with watching(client, job(folder, "wiped")) as heard:
        eventually(lambda: len(heard.outcomes) == 1)
        shutil.rmtree(folder / OWN)
        eventually((folder / OWN / "identity").exists)
    (folder / "a.png.json").unlink()
    again, _ = once(client, job(folder, "wiped"))
    assert ids(again) == ids(heard)


@pytest.mark.parametrize("moved", [True, False], ids=["moved", "left"])
def test_of_two_disks_that_are_swapped_each_has_an_identity_of_its_own(
    client: Client, folder: Path, share: Path, tmp_path: Path, tiny_images: Images, moved: bool
) -> None:
    """The second one was never watched, and has the same name with the same bytes."""
    out = tmp_path / "out" if moved else None
    (folder / "a.png").write_bytes(tiny_images["good"][0])
    with watching(client, job(folder, f"swapped-{moved}", move_to=out)) as heard:
        eventually(lambda: len(heard.outcomes) == 1)
        (share / "a.png").write_bytes(tiny_images["good"][0])
        mount(share, folder)
        eventually(lambda: len(heard.outcomes) == 2)
    assert len(set(ids(heard))) == 2


def test_also_where_they_have_the_same_numbers(
    client: Client, folder: Path, share: Path, tiny_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As two sticks in one socket have; in between the folder is not there."""
    stat, numbers = Path.stat, folder.stat()

    def same(path: Path, **how: bool) -> os.stat_result:
        status = stat(path, **how)
        return numbers if path == folder else status

    monkeypatch.setattr(Path, "stat", same)
    (folder / "a.png").write_bytes(tiny_images["good"][0])
    with watching(client, job(folder, "sticks")) as heard:
        eventually(lambda: len(heard.outcomes) == 1)
        folder.rename(folder.with_name("below"))
        eventually(lambda: bool(heard.reasons))
        (share / "a.png").write_bytes(tiny_images["good"][0])
        share.rename(folder)
        eventually(lambda: len(heard.outcomes) == 2)
    assert len(set(ids(heard))) == 2


def test_while_its_numbers_change_a_share_is_not_read_again(
    client: Client, folder: Path, share: Path, tiny_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pictures keep theirs: each is hashed once, and what was taken is looked for once."""
    (folder / "a.png").write_bytes(tiny_images["good"][0])
    read, told = Found.read, []

    def reads(one: Found) -> bytes | None:
        told.append(one.name)
        return read(one)

    def looks(root: Path) -> None:
        told.append("put back")
        put_back(root)

    monkeypatch.setattr(Found, "read", reads)
    monkeypatch.setattr(module, "put_back", looks)
    heard = Heard()
    watcher = Watcher(client, job(folder, "restless"), heard)
    assert watcher.run(threading.Event(), once=True)
    for path in list(folder.iterdir()):
        path.rename(share / path.name)
    mount(share, folder)
    assert watcher.run(threading.Event(), once=True)
    assert (told, len(heard.outcomes)) == (["put back", "a.png"], 1)


def test_a_damaged_identity_ends_no_watcher(client: Client, folder: Path, tiny_images: Images) -> None:
    with watching(client, job(folder, "damaged")) as heard:
        (folder / OWN / "identity").write_bytes(b"\xff\xfe")
        (folder / "a.png").write_bytes(tiny_images["good"][0])
        eventually(lambda: len(heard.outcomes) == 1)
    (folder / "a.png.json").unlink()
    assert ids(once(client, job(folder, "damaged"))[0]) == ids(heard)


def test_a_share_that_comes_back_under_other_numbers_is_the_same_one(
    client: Client, folder: Path, share: Path, tmp_path: Path, tiny_images: Images
) -> None:
    (folder / "a.png").write_bytes(tiny_images["good"][0])
    with watching(client, job(folder, "numbers")) as heard:
        eventually(lambda: len(heard.outcomes) == 1)
        shutil.copytree(folder, share, dirs_exist_ok=True)
        mount(share, folder)
        (folder / "b.png").write_bytes(tiny_images["good"][1])
        eventually(lambda: len(heard.outcomes) == 2)
    assert [one.file.name for one in heard.outcomes] == ["a.png", "b.png"]


def test_what_was_taken_from_a_share_before_goes_back_when_it_is_mounted(
    client: Client, folder: Path, share: Path, tiny_images: Images
) -> None:
    path = share / "a.png"
    path.write_bytes(tiny_images["good"][0])
    assert Claims(share, 1.0).take(Found("a.png", path, Stamp.of(path.stat()), 1.0))
    path.write_bytes(tiny_images["good"][1])
    with watching(client, job(folder, "back")) as heard:
        mount(share, folder)
        told = "a.png: taken to be moved before"
        eventually(lambda: any(told in reason for reason in heard.reasons))
        (folder / "a.png").rename(folder / "b.png")
        eventually(lambda: len(heard.outcomes) == 2)
    assert sorted(one.file.name for one in heard.outcomes) == ["a.png", "b.png"]
