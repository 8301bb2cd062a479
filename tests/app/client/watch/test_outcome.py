import contextlib
import errno
import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.client.watch import outcome
from app.client.watch.folder import PATTERNS, Folder, Found, Stamp
from app.client.watch.outcome import Outcome
from app.schemas.predict import Inspection
from app.schemas.problem import ProblemDetails

PROBLEM = ProblemDetails(
    type="undecodable-image",
    title="t",
    status=422,
    detail="The PNG is truncated.",
    instance="/",
    request_id="r",
)


@pytest.fixture(scope="module")
def inspection(service: TestClient, tiny_images: dict[str, list[bytes]]) -> Inspection:
    answer = service.post("/v1/models/tiny/predict", content=tiny_images["good"][0])
    return Inspection.model_validate(answer.json())


def make(folder: Path, name: str, content: bytes, said: Inspection | ProblemDetails) -> Outcome:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    found = Found(name, path, Stamp.of(path.stat()), 1.0)
    sha256 = hashlib.sha256(content).hexdigest()
    if isinstance(said, Inspection):
        return Outcome(found, sha256, said, None, b"overlay")
    return Outcome(found, sha256, None, said)


def test_left_where_it_is(tmp_path: Path, inspection: Inspection) -> None:
    made = make(tmp_path, "a.png", b"one", inspection)
    made.leave()
    told = json.loads((tmp_path / "a.png.json").read_bytes())
    assert told["file"] == {
        "name": "a.png",
        "bytes": 3,
        "modified_ns": made.file.stamp.modified_ns,
        "sha256": hashlib.sha256(b"one").hexdigest(),
    }
    assert Inspection.model_validate(told["inspection"]) == inspection
    assert (tmp_path / "a.png.overlay.png").read_bytes() == b"overlay"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.png.json", "a.png.overlay.png"]


def test_the_json_tells_whether_this_very_picture_was_dealt_with(
    tmp_path: Path, inspection: Inspection
) -> None:
    made = make(tmp_path, "a.png", b"one", inspection)
    found, sha256 = made.file, made.sha256
    assert not outcome.is_dealt_with(found, sha256)
    made.leave()
    assert outcome.is_dealt_with(found, sha256)
    assert not outcome.is_dealt_with(found, hashlib.sha256(b"two").hexdigest())
    os.utime(found.path, ns=(1, 1))
    assert not outcome.is_dealt_with(replace(found, stamp=Stamp.of(found.path.stat())), sha256)
    for damaged in (b"", b"{", b"[]", b"{}", b'{"file": 1}', b'{"file": {"bytes": 3}}', b"\xff"):
        (tmp_path / "a.png.json").write_bytes(damaged)
        assert not outcome.is_dealt_with(found, sha256)


@pytest.mark.parametrize("there", [b'{"camera": "exposure 3 ms"}', b"[1]", b'{"file": {"name": "a.png"}}'])
def test_a_json_of_the_camera_is_not_written_over(
    tmp_path: Path, inspection: Inspection, there: bytes
) -> None:
    made = make(tmp_path, "a.png", b"one", inspection)
    (tmp_path / "a.png.json").write_bytes(there)
    with pytest.raises(FileExistsError, match=r"not a watcher's.*a\.png\.json"):
        made.leave()
    assert (tmp_path / "a.png.json").read_bytes() == there
    assert not (tmp_path / "a.png.overlay.png").exists()


def test_its_own_json_is_written_anew_whatever_state_it_is_in(tmp_path: Path, inspection: Inspection) -> None:
    make(tmp_path, "a.png", b"one", inspection).leave()
    made = make(tmp_path, "a.png", b"two", inspection)
    for there in (None, b"", b'{"file": {"sha'):
        if there is not None:
            (tmp_path / "a.png.json").write_bytes(there)
        made.leave()
        assert (tmp_path / "a.png.json").read_bytes() == made.sidecar()


def test_moved(tmp_path: Path, inspection: Inspection) -> None:
    target = make(tmp_path / "in", "sub/a.png", b"one", inspection).move(tmp_path / "out")
    assert target == tmp_path / "out" / "sub" / "a.png"
    assert target.read_bytes() == b"one"
    assert (tmp_path / "out" / "sub" / "a.png.json").exists()
    assert list((tmp_path / "in" / "sub").iterdir()) == []


def test_set_aside_with_the_reason(tmp_path: Path) -> None:
    target = make(tmp_path / "in", "a.png", b"bad", PROBLEM).move(tmp_path / "out")
    assert target == tmp_path / "out" / "failed" / "a.png"
    told = json.loads(target.with_name("a.png.json").read_bytes())
    assert told["problem"]["detail"] == "The PNG is truncated."
    assert "inspection" not in told


def test_what_was_not_read_takes_no_others_name(tmp_path: Path) -> None:
    failed = tmp_path / "out" / "failed"
    failed.mkdir(parents=True)
    (failed / "a.png.json").write_text('{"exposure": 3}')
    for content in (b"1", b"22"):
        made = replace(make(tmp_path / "in", "a.png", content, PROBLEM), sha256=None)
        target = made.move(tmp_path / "out")
        assert target.read_bytes() == content
        told = json.loads(target.with_name(f"{target.name}.json").read_bytes())["file"]
        assert (told["bytes"], told["sha256"]) == (len(content), None)
    assert (failed / "a.png.json").read_text() == '{"exposure": 3}'
    assert sorted(path.read_bytes() for path in failed.glob("*.png")) == [b"1", b"22"]


def test_a_name_that_comes_again(tmp_path: Path, inspection: Inspection) -> None:
    out = tmp_path / "out"
    first = make(tmp_path / "in", "a.png", b"one", inspection).move(out)
    second = make(tmp_path / "in", "a.png", b"two", inspection).move(out)
    assert second.name == f"a-{hashlib.sha256(b'two').hexdigest()[:12]}.png"
    assert (first.read_bytes(), second.read_bytes()) == (b"one", b"two")
    assert second.with_name(f"{second.name}.json").exists()
    # What a crash between copying and removing leaves is finished, not done twice.
    assert make(tmp_path / "in", "a.png", b"one", inspection).move(out) == first
    assert make(tmp_path / "in", "a.png", b"two", inspection).move(out) == second
    assert sum(path.suffix == ".png" and ".overlay" not in path.name for path in out.iterdir()) == 2


@pytest.mark.parametrize("letter", ["x", "\u691c"])
@pytest.mark.parametrize("spare", [11, 5, 4, 0])
def test_a_name_to_which_nothing_can_be_appended(
    tmp_path: Path, inspection: Inspection, letter: str, spare: int
) -> None:
    """An overlay is left out from 11 bytes that are spare on, and a JSON's name is made shorter for 4."""
    length = os.pathconf(tmp_path, "PC_NAME_MAX") - spare - len(".png")
    size = len(letter.encode())
    name = letter * (length // size) + "-" * (length % size) + ".png"
    made = make(tmp_path / "stay", name, b"one", inspection)
    made.leave()
    (tmp_path / "stay" / name).stat()
    json_of = [path.name for path in (tmp_path / "stay").glob("*.json")]
    assert len(json_of) == 1
    assert (json_of == [name + ".json"]) is (spare >= 5)
    assert json.loads((tmp_path / "stay" / json_of[0]).read_bytes())["file"]["name"] == name
    assert list((tmp_path / "stay").glob("*.overlay.png")) == []
    assert outcome.is_dealt_with(made.file, made.sha256)
    outcome.expect_own(made.file.path)
    made = make(tmp_path / "camera", name, b"one", inspection)
    moved = made.move(tmp_path / "out")
    assert (moved.name == name) is (spare >= 5)
    assert (moved.read_bytes(), moved.suffix) == (b"one", ".png")
    assert moved.with_name(moved.name + ".json").is_file()
    # The name is taken, and there is no room for more of it.
    other = make(tmp_path / "camera", name, b"two", inspection).move(tmp_path / "out")
    assert (other.read_bytes(), moved.read_bytes()) == (b"two", b"one")
    assert other.stem.endswith(hashlib.sha256(b"two").hexdigest()[:12])
    assert other.with_name(other.name + ".overlay.png").is_file()


def test_nothing_of_a_cut_name_becomes_a_picture(tmp_path: Path, inspection: Inspection) -> None:
    name = "x" * (os.pathconf(tmp_path, "PC_NAME_MAX") - len(".png")) + ".png"
    make(tmp_path, name, b"one", inspection).leave()
    for path in tmp_path.glob("*.json"):
        path.unlink()
    folder = Folder(tmp_path, PATTERNS, 0.0)
    assert [found.name for found in folder.look()[0]] == [name]


def test_long_names_that_begin_alike_keep_a_json_each(tmp_path: Path, inspection: Inspection) -> None:
    longest = os.pathconf(tmp_path, "PC_NAME_MAX")
    names = [f"{'x' * (longest - 5)}{i}.png" for i in range(2)]
    made = [make(tmp_path, name, b"one", inspection) for name in names]
    for one in made:
        one.leave()
    assert all(outcome.is_dealt_with(one.file, one.sha256) for one in made)
    told = [json.loads(path.read_bytes())["file"]["name"] for path in tmp_path.glob("*.json")]
    assert sorted(told) == names


def test_a_suffix_that_is_none_is_cut_too(tmp_path: Path, inspection: Inspection) -> None:
    name = "a." + "x" * (os.pathconf(tmp_path, "PC_NAME_MAX") - 2)
    made = make(tmp_path / "camera", name, b"one", inspection)
    assert made.move(tmp_path / "out").name.startswith("a.xxx")


def test_where_the_system_does_not_tell_the_longest_name(
    tmp_path: Path, inspection: Inspection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "pathconf")
    made = make(tmp_path, "x" * 250 + ".png", b"one", inspection)
    made.leave()
    assert outcome.is_dealt_with(made.file, made.sha256)


@pytest.mark.parametrize("told", [0, -1, 1530])
def test_where_a_share_tells_no_usable_longest_name(
    tmp_path: Path, inspection: Inspection, monkeypatch: pytest.MonkeyPatch, told: int
) -> None:
    monkeypatch.setattr(os, "pathconf", lambda *_: told)
    short = make(tmp_path, "a.png", b"one", inspection)
    short.leave()
    assert (tmp_path / "a.png.json").is_file()
    long = make(tmp_path, "x" * 250 + ".png", b"one", inspection)
    long.leave()
    assert outcome.is_dealt_with(long.file, long.sha256)


def test_a_name_without_room_for_anything_of_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pathconf", lambda *_: 14)
    assert outcome._sidecar(tmp_path / "long-enough.png").name.endswith(".png.json")


@pytest.mark.parametrize("links", [True, False])
def test_of_two_that_move_under_one_name_at_once_none_is_lost(
    tmp_path: Path, inspection: Inspection, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    out = tmp_path / "out"
    first, second = (
        make(tmp_path / folder, "a.png", content, inspection)
        for folder, content in (("in-1", b"one"), ("in-2", b"two"))
    )
    move = outcome._move

    def overtaken(source: Path, target: Path, beside: list[Path]) -> None:
        if source == first.file.path:
            second.move(out)
        move(source, target, beside)

    def link(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "as on FAT", source, None, target)

    monkeypatch.setattr(outcome, "_move", overtaken)
    if not links:
        monkeypatch.setattr(os, "link", link)
    moved = first.move(out)
    assert second.sha256 is not None
    other = out / f"a-{second.sha256[:12]}.png"
    for path, said in ((moved, first), (other, second)):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == said.sha256
        assert path.with_name(f"{path.name}.json").read_bytes() == said.sidecar()
        assert path.with_name(f"{path.name}.overlay.png").exists()
    assert len(list(out.iterdir())) == 6


@pytest.mark.parametrize("there", [b"{}", b'{"file": {"sha256": "of another"}}'])
def test_a_json_of_another_is_left_as_it_is(tmp_path: Path, inspection: Inspection, there: bytes) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png.json").write_bytes(there)
    made = make(tmp_path / "in", "a.png", b"one", inspection)
    assert made.sha256 is not None
    assert made.move(tmp_path / "out").name == f"a-{made.sha256[:12]}.png"
    assert (tmp_path / "out" / "a.png.json").read_bytes() == there


def test_two_processes_may_write_one_file_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of two containers may have the same number."""
    path = tmp_path / "a.json"
    rename = Path.replace

    def overtaken(self: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", rename)
        outcome.replace(path, b"two")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", overtaken)
    outcome.replace(path, b"one")
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


def test_to_another_disk(tmp_path: Path, other_disk: Path, inspection: Inspection) -> None:
    out = other_disk / "out"
    made = make(tmp_path, "a.png", b"one", inspection)
    target = made.move(out)
    assert target.read_bytes() == b"one"
    assert target.stat().st_mtime_ns == made.file.stamp.modified_ns
    assert not made.file.path.exists()
    assert {path.name for path in out.iterdir()} == {"a.png", "a.png.json", "a.png.overlay.png"}


def test_to_a_share_on_which_files_are_somebody_elses(
    tmp_path: Path, other_disk: Path, inspection: Inspection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their times cannot be set there."""

    def refuses(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(path))

    made = make(tmp_path, "a.png", b"one", inspection)
    monkeypatch.setattr(os, "utime", refuses)
    assert made.move(other_disk).read_bytes() == b"one"
    assert not made.file.path.exists()


def test_a_picture_is_on_another_disk_before_it_is_gone_here(
    tmp_path: Path, other_disk: Path, inspection: Inspection, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(tmp_path, "a.png", b"one", inspection)
    kept: list[Path] = []
    sync = os.fsync

    def syncing(number: int) -> None:
        assert made.file.path.exists()
        kept.append(Path(f"/proc/self/fd/{number}").readlink())
        sync(number)

    monkeypatch.setattr(os, "fsync", syncing)
    target = made.move(other_disk)
    temporary, *rest = kept
    assert temporary.parent == target.parent
    assert rest == [
        target.with_name("a.png.json"),
        target.with_name("a.png.overlay.png"),
        target.parent,
    ]


def test_who_takes_the_json_at_once_gets_no_picture_twice(
    tmp_path: Path, other_disk: Path, inspection: Inspection, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(tmp_path, "a.png", b"one", inspection)
    copy = outcome._copy

    def overtaken(source: Path, target: Path) -> None:
        copy(source, target)
        (other_disk / "a.png.json").unlink()

    monkeypatch.setattr(outcome, "_copy", overtaken)
    assert made.move(other_disk).read_bytes() == b"one"
    assert not made.file.path.exists()


@pytest.mark.parametrize(("number", "done"), [(errno.EINVAL, True), (errno.EIO, False)])
def test_a_share_that_keeps_nothing_for_sure(
    tmp_path: Path,
    other_disk: Path,
    inspection: Inspection,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    done: bool,
) -> None:
    """One that cannot say so is taken as it is; one on which something is lost is not."""

    def fails(_: int) -> None:
        raise OSError(number, os.strerror(number))

    made = make(tmp_path, "a.png", b"one", inspection)
    monkeypatch.setattr(os, "fsync", fails)
    with contextlib.nullcontext() if done else pytest.raises(OSError, match=os.strerror(number)):
        made.move(other_disk)
    assert made.file.path.exists() != done


def test_a_folder_that_cannot_be_written_to_loses_nothing(tmp_path: Path, inspection: Inspection) -> None:
    (tmp_path / "out").write_text("a file where a folder should be")
    made = make(tmp_path / "in", "a.png", b"one", inspection)
    with pytest.raises(OSError, match="out"):
        made.move(tmp_path / "out")
    assert made.file.path.read_bytes() == b"one"


def test_a_picture_is_not_moved_before_its_json_is_there(tmp_path: Path, inspection: Inspection) -> None:
    (tmp_path / "out" / "a.png.json").mkdir(parents=True)
    made = make(tmp_path / "in", "a.png", b"one", inspection)
    with pytest.raises(OSError, match=r"a\.png\.json"):
        made.move(tmp_path / "out")
    assert made.file.path.read_bytes() == b"one"
    assert not (tmp_path / "out" / "a.png").exists()


def test_what_is_larger_than_another_disk_is_not_copied_there(tmp_path: Path, other_disk: Path) -> None:
    made = make(tmp_path, "a.png", b"one", PROBLEM)
    os.truncate(made.file.path, 2**42)  # a hole
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        replace(made, sha256=None).move(other_disk)
    assert made.file.path.exists()
    assert [path.name for path in (other_disk / "failed").iterdir()] == ["a.png.json"]
