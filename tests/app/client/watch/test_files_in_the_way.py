"""What stands in the way of pictures in their own folder, and that one holds up no other."""

import errno
import hashlib
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from app.client import Client
from app.client.watch.claims import Claims
from app.client.watch.folder import OWN, Found
from app.schemas.predict import Inspection
from tests.app.client.watch.conftest import behind, full, ids, job, once, once_in_time, shut, watching
from tests.waiting import eventually

Images = dict[str, list[bytes]]

pytestmark = pytest.mark.usefixtures("soon")


def test_one_that_cannot_be_taken_is_said_and_holds_up_no_other(
    client: Client, folder: Path, tmp_path: Path, tiny_images: Images
) -> None:
    for name in ("day/a.png", "b.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(tiny_images["good"][0])
    (folder / OWN / "taken").mkdir(parents=True)
    (folder / OWN / "taken" / "day").symlink_to("nowhere")  # so its folder cannot be made
    heard, complete = once_in_time(client, job(folder, "untaken", move_to=tmp_path / "out"))
    assert (complete, [one.file.name for one in heard.outcomes]) == (False, ["b.png"])
    assert heard.reasons
    assert all("day/a.png: " in reason for reason in heard.reasons)
    assert (folder / "day" / "a.png").read_bytes() == tiny_images["good"][0]


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


def test_none_can_be_taken_from_another_disk(
    client: Client, folder: Path, tmp_path: Path, pictures: list[bytes], other_disk: Path
) -> None:
    (folder / OWN).mkdir()
    (folder / OWN / "taken").symlink_to(other_disk)
    heard, complete = once_in_time(client, job(folder, "disk", move_to=tmp_path / "out"))
    assert (complete, heard.outcomes) == (False, [])
    assert {reason.partition(":")[0] for reason in heard.reasons} == {"a.png", "b.png"}
    assert [(folder / name).read_bytes() for name in ("a.png", "b.png")] == pictures


def test_what_waits_behind_one_that_is_tried_in_vain_is_stuck_too(
    url: str, folder: Path, tmp_path: Path, pictures: list[bytes]
) -> None:
    (folder / "b.png").unlink()
    settings = job(folder, "behind", move_to=tmp_path / "out")
    with behind(url, 408, lambda request: request.content == pictures[0]) as (client, _):
        assert not once_in_time(client, settings)[1]
        (folder / "a.png").write_bytes(pictures[1])
        heard, complete = once_in_time(client, settings)
    assert (complete, heard.outcomes) == (False, [])
    assert sorted(path.read_bytes() for path in folder.rglob("a.png")) == sorted(pictures)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EHOSTDOWN, errno.ESTALE])
def test_a_folder_that_cannot_be_read_is_said_once_and_passed_over(
    client: Client, folder: Path, tiny_images: Images, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    (folder / "a.png").write_bytes(tiny_images["good"][0])
    (folder / "line-2").mkdir()
    shut(monkeypatch, "line-2", number)
    heard, complete = once(client, job(folder, f"closed-{number}"))
    # What is somebody else's, as lost+found, holds no pictures; a share that is away does.
    assert (complete, len(ids(heard))) == (number == errno.EACCES, 1)
    assert heard.reasons == [f"{folder / 'line-2'}: {os.strerror(number)}; it is passed over"]


def test_a_camera_folder_that_cannot_be_read_is_waited_for(
    client: Client, folder: Path, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    shut(monkeypatch, folder.name, errno.EHOSTDOWN)
    heard, complete = once(client, job(folder, "away"))
    assert (complete, heard.outcomes) == (False, [])
    assert heard.reasons == [f"{folder}: {os.strerror(errno.EHOSTDOWN)}"]
    assert len(pictures) == 2


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
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
            assert heard.reasons == [f"{out or folder}: {os.strerror(number)}"]
        eventually(lambda: len(heard.outcomes) == 2)
    eventually(lambda: len(list(client.inspections(station=station))) == 2)  # filed a moment later


class TestAFolderBelowThatIsFull:
    @pytest.fixture
    def archive(self, folder: Path, pictures: list[bytes]) -> Path:
        """The folder below, with the oldest picture."""
        archive = folder / "archive"
        archive.mkdir()
        (folder / "a.png").rename(archive / "a.png")
        assert len(pictures) == 2
        return archive

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
    def test_holds_up_no_other_where_it_is_another_disk(
        self, client: Client, folder: Path, archive: Path, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        stat = Path.stat

        def mounted(path: Path, **how: bool) -> Any:
            status = stat(path, **how)
            if not path.is_relative_to(archive):
                return status
            told = {name: getattr(status, name) for name in dir(status) if name.startswith("st_")}
            return SimpleNamespace(**{**told, "st_dev": status.st_dev + 1})

        monkeypatch.setattr(Path, "stat", mounted)
        with full(monkeypatch, archive, number):
            heard, complete = once_in_time(client, job(folder, f"mount-{number}"))
        assert (complete, [one.file.name for one in heard.outcomes]) == (False, ["b.png"])
        assert heard.reasons
        assert all(reason.startswith("archive/a.png: ") for reason in heard.reasons)

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
    def test_holds_up_all_where_it_is_the_same_disk(
        self, client: Client, folder: Path, archive: Path, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        with full(monkeypatch, archive, number):
            heard, complete = once_in_time(client, job(folder, f"same-{number}"))
        assert (complete, heard.outcomes) == (False, [])
        assert heard.reasons == [f"{folder}: {os.strerror(number)}"]

    def test_holds_up_no_other_where_it_has_a_quota_of_its_own(
        self, client: Client, folder: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with full(monkeypatch, archive, errno.EDQUOT):
            heard, complete = once_in_time(client, job(folder, "quota"))
        assert (complete, [one.file.name for one in heard.outcomes]) == (False, ["b.png"])

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
    def test_holds_up_no_other_where_bad_ones_go_to_another_disk(
        self,
        client: Client,
        folder: Path,
        tmp_path: Path,
        pictures: list[bytes],
        other_disk: Path,
        monkeypatch: pytest.MonkeyPatch,
        number: int,
    ) -> None:
        out = tmp_path / "out"
        out.mkdir()
        (out / "failed").symlink_to(other_disk)
        (folder / "a.png").write_bytes(b"no picture")
        os.utime(folder / "a.png", (1, 1))
        with full(monkeypatch, out / "failed", number):
            heard, complete = once_in_time(client, job(folder, f"failed-{number}", move_to=out))
        assert (complete, [one.file.name for one in heard.outcomes]) == (False, ["b.png"])
        assert all(reason.startswith("a.png: ") for reason in heard.reasons)
        assert len(pictures) == 2


def test_what_was_taken_makes_room_where_the_cameras_disk_is_full(
    client: Client, folder: Path, tmp_path: Path, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = job(folder, "room", move_to=tmp_path / "out")
    with Client("http://127.0.0.1:1", patience=0) as nobody:
        once(nobody, settings)
    for name in ("c.png", "d.png"):
        (folder / name).write_bytes(pictures[0])

    def refuse(claims: Claims, found: Found) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(found.path))

    monkeypatch.setattr(Claims, "take", refuse)
    heard, complete = once_in_time(client, settings)
    assert (complete, [one.file.name for one in heard.outcomes]) == (False, ["a.png", "b.png"])
    assert set(heard.reasons) == {f"{folder}: {os.strerror(errno.ENOSPC)}"}
    assert len(heard.reasons) <= 3  # said again after others have gone on


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


def test_one_for_which_there_is_no_memory_holds_up_no_other(
    client: Client, folder: Path, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Found.read

    def scarce(found: Found) -> bytes | None:
        if found.name == "a.png":
            raise MemoryError
        return read(found)

    monkeypatch.setattr(Found, "read", scarce)
    heard, complete = once_in_time(client, job(folder, "memory"))
    assert (complete, [one.file.name for one in heard.outcomes]) == (False, ["b.png"])
    size = len(pictures[0])
    assert f"a.png: there is no memory for its {size} bytes" in heard.reasons
