"""What stands in the way of pictures in their own folder, and that one holds up no other."""

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from app.client import Client
from app.schemas.predict import Inspection
from tests.app.client.watch.conftest import full, job, once, once_in_time, shut, watching
from tests.support.waiting import eventually

Images = dict[str, list[bytes]]

pytestmark = pytest.mark.usefixtures("soon")


@pytest.mark.parametrize("moved", [False, True])
def test_a_file_that_stays_empty_is_set_aside(
    client: Client, folder: Path, tmp_path: Path, moved: bool
) -> None:
    (folder / "empty.png").write_bytes(b"")
    out = tmp_path / "out" if moved else None
    heard, complete = once_in_time(client, job(folder, f"empty-{moved}", move_to=out))
    assert complete
    assert [(one.file.name, one.inspection) for one in heard.outcomes] == [("empty.png", None)]
    told = (folder if out is None else out / "failed") / "empty.png.json"
    assert json.loads(told.read_bytes())["problem"]["detail"]
    assert once_in_time(client, job(folder, f"empty-{moved}", move_to=out))[0].outcomes == []


def test_once_ends_where_a_json_cannot_be_written(
    client: Client, folder: Path, pictures: list[bytes]
) -> None:
    (folder / "a.png.json").mkdir()
    heard, complete = once_in_time(client, job(folder, "unwritten"))
    assert (complete, [one.file.name for one in heard.outcomes]) == (False, ["b.png"])
    assert len(pictures) == 2


def test_a_camera_that_writes_jsons_of_its_own_asks_nothing_of_the_server(
    client: Client, folder: Path, pictures: list[bytes]
) -> None:
    (folder / "a.png.json").write_text('{"exposure": 3}')
    heard, complete = once_in_time(client, job(folder, "camera's"))
    assert (complete, [one.file.name for one in heard.outcomes]) == (False, ["b.png"])
    assert any("a.png.json" in reason and "not a watcher's" in reason for reason in heard.reasons)
    assert (folder / "a.png.json").read_text() == '{"exposure": 3}'
    assert len(list(client.inspections(station="camera's"))) == 1
    assert len(pictures) == 2


def test_a_camera_folder_that_cannot_be_read_is_waited_for(
    client: Client, folder: Path, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    shut(monkeypatch, folder.name, errno.EHOSTDOWN)
    heard, complete = once(client, job(folder, "away"))
    assert (complete, heard.outcomes) == (False, [])
    assert heard.reasons == [f"{folder}: {os.strerror(errno.EHOSTDOWN)}"]
    assert len(pictures) == 2


@pytest.mark.parametrize(("moved", "number"), [(False, errno.ENOSPC), (True, errno.EROFS)])
def test_while_the_disk_is_full_none_but_the_oldest_is_uploaded(
    client: Client,
    folder: Path,
    tmp_path: Path,
    pictures: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    moved: bool,
) -> None:
    out = tmp_path / "out" if moved else None
    station = f"full-{number}-{moved}"
    asked: list[str] = []
    inspect = Client.inspect

    def counted(client: Client, category: str, image: bytes, **wishes: Any) -> Inspection:
        asked.append(hashlib.sha256(image).hexdigest())
        return inspect(client, category, image, **wishes)

    monkeypatch.setattr(Client, "inspect", counted)
    with watching(client, job(folder, station, move_to=out)) as heard:
        with full(monkeypatch, out or folder, number) as tried:
            eventually(lambda: len(tried) >= 3)
            assert (heard.outcomes, set(asked)) == ([], {hashlib.sha256(pictures[0]).hexdigest()})
            assert heard.reasons == [os.strerror(number)]
        eventually(lambda: len(heard.outcomes) == 2)
    eventually(lambda: len(list(client.inspections(station=station))) == 2)  # filed a moment later


@pytest.mark.parametrize("moved", [False, True])
def test_one_that_is_too_large_to_be_read_is_set_aside_unread(
    client: Client, folder: Path, tmp_path: Path, pictures: list[bytes], moved: bool
) -> None:
    out = tmp_path / "out" if moved else None
    (folder / "a.png").rename(folder / "c.png")
    with (folder / "a.png").open("wb") as file:
        file.truncate(2**40)  # a hole
    for _ in range(2):
        heard, complete = once_in_time(client, job(folder, f"large-{moved}", move_to=out))
        assert complete
    assert heard.outcomes == []
    there = folder if out is None else out / "failed"
    told = json.loads((there / "a.png.json").read_bytes())
    assert (told["file"]["sha256"], told["problem"]["status"]) == (None, 413)
    assert f"{2**40} bytes" in told["problem"]["detail"]
    assert (there / "a.png").stat().st_size == 2**40
    assert len(list((out or folder).glob("?.png.json"))) == 3 - moved
    assert len(pictures) == 2
