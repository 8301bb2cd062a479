"""What stands in the way of pictures in their own folder, and that one holds up no other."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.client import Client, Inspection
from tests.app.client.conftest import Network
from tests.app.client.watch.conftest import job, once, shut, watching
from tests.support.waiting import eventually


@contextmanager
def full(monkeypatch: pytest.MonkeyPatch, folder: Path, number: int) -> Iterator[list[Path]]:
    """Let nothing be written into a folder, as where its disk is full; gives what was tried."""
    tried: list[Path] = []
    write = Path.write_bytes

    def refuse(path: Path, content: bytes) -> int:
        if path.is_relative_to(folder):
            tried.append(path)
            raise OSError(number, os.strerror(number), str(path))
        return write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", refuse)
        yield tried


@pytest.mark.parametrize("moved", [False, True])
def test_file_that_stays_empty_is_set_aside(
    client: Client, folder: Path, tmp_path: Path, moved: bool
) -> None:
    (folder / "empty.png").write_bytes(b"")
    out = tmp_path / "out" if moved else None
    heard, complete = once(client, job(folder, f"empty-{moved}", move_to=out))
    assert (complete, heard.names, heard.ids) == (False, ["empty.png"], [])
    told = (folder if out is None else out / "failed") / "empty.png.json"
    assert json.loads(told.read_bytes())["problem"]["detail"]
    assert once(client, job(folder, f"empty-{moved}", move_to=out))[0].outcomes == []


def test_once_ends_if_a_json_cannot_be_written(client: Client, folder: Path, pictures: list[bytes]) -> None:
    (folder / "a.png.json").mkdir()
    heard, complete = once(client, job(folder, "unwritten"))
    assert (complete, heard.names, len(pictures)) == (False, ["b.png"], 2)


def test_json_of_a_camera_is_not_overwritten(
    client: Client, network: Network, folder: Path, pictures: list[bytes]
) -> None:
    (folder / "a.png.json").write_text('{"exposure": 3}')
    heard, complete = once(client, job(folder, "camera's"))
    assert (complete, heard.names, network.posted) == (False, ["b.png"], pictures[1:])
    assert heard.reasons == ["a.png: a.png.json: it exists already, and is not a watcher's"]
    assert (folder / "a.png.json").read_text() == '{"exposure": 3}'


@pytest.mark.parametrize("below", [False, True])
def test_unreadable_camera_folder_is_waited_for(
    client: Client, folder: Path, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch, below: bool
) -> None:
    away = folder / "share" if below else folder
    away.mkdir(exist_ok=True)
    shut(monkeypatch, away.name)
    heard, complete = once(client, job(folder, f"away-{below}"))
    assert (complete, len(heard.ids)) == (False, len(pictures) * below)
    assert heard.reasons == [f"{away}: Host is down{'; it is skipped' * below}"]


@pytest.mark.parametrize(("moved", "number"), [(False, errno.ENOSPC), (True, errno.EROFS)])
def test_full_disk_uploads_only_the_oldest_image(
    client: Client,
    network: Network,
    folder: Path,
    tmp_path: Path,
    pictures: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    moved: bool,
) -> None:
    out = tmp_path / "out" if moved else None
    station = f"full-{number}"
    with watching(client, job(folder, station, move_to=out)) as heard:
        with full(monkeypatch, out or folder, number) as tried:
            eventually(lambda: len(tried) >= 3)
            assert (heard.outcomes, set(network.posted)) == ([], {pictures[0]})
            assert heard.reasons == [os.strerror(number)]
        eventually(lambda: len(heard.outcomes) == 2)
    assert all(isinstance(one.result, Inspection) for one in heard.outcomes)
    eventually(lambda: len(list(client.inspections(station=station))) == 2)  # filed a moment later
