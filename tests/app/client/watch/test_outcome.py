import errno
import hashlib
import json
import os
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.client.watch import outcome
from app.client.watch.folder import CompleteFile, Stamp
from app.client.watch.outcome import ImageOutcome
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


def make(folder: Path, name: str, content: bytes, said: Inspection | ProblemDetails) -> ImageOutcome:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    found = CompleteFile(name, path, Stamp.of(path), 1.0)
    sha256 = hashlib.sha256(content).hexdigest()
    return ImageOutcome(found, sha256, said, b"overlay" if isinstance(said, Inspection) else None)


def test_left_where_it_is(tmp_path: Path, inspection: Inspection) -> None:
    made = make(tmp_path, "a.png", b"one", inspection)
    made.write_beside(made.file.path)
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


@pytest.mark.parametrize(
    ("there", "entry"),
    [
        (None, None),
        (b"", None),
        (b'{"file": {"sha', None),
        (b'{"camera": "exposure 3 ms"}', {}),
        (b"[1]", {}),
        (b'{"file": {"name": "a.png"}}', {}),
    ],
)
def test_json_of_a_camera_is_recognised(
    tmp_path: Path, inspection: Inspection, there: bytes | None, entry: dict[str, str] | None
) -> None:
    made = make(tmp_path, "a.png", b"one", inspection)
    if there is not None:
        (tmp_path / "a.png.json").write_bytes(there)
    assert outcome.file_entry(made.file.path) == entry
    made.write_beside(made.file.path)  # over whatever is there
    told = outcome.file_entry(made.file.path)
    assert told is not None
    assert told["sha256"] == made.sha256


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


def test_image_of_another_program_is_not_overwritten(tmp_path: Path, inspection: Inspection) -> None:
    out = tmp_path / "out"
    out.mkdir()
    other = f"a-{hashlib.sha256(b'one').hexdigest()[:12]}.png"
    (out / "a.png").write_bytes(b"somebody's")
    assert make(tmp_path / "in", "a.png", b"one", inspection).move(out).name == other
    (out / f"{other}.json").unlink()
    with pytest.raises(FileExistsError, match=other):
        make(tmp_path / "in", "a.png", b"one", inspection).move(out)
    assert (out / "a.png").read_bytes() == b"somebody's"


@pytest.mark.parametrize("links", [True, False])
def test_concurrent_moves_to_one_name_lose_no_image(
    tmp_path: Path, inspection: Inspection, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    out = tmp_path / "out"
    first, second = (
        make(tmp_path / folder, "a.png", content, inspection)
        for folder, content in (("in-1", b"one"), ("in-2", b"two"))
    )
    move = outcome._move

    def overtaken(source: Path, target: Path) -> None:
        if source == first.file.path:
            second.move(out)
        move(source, target)

    def link(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "as on FAT", source, None, target)

    monkeypatch.setattr(outcome, "_move", overtaken)
    if not links:
        monkeypatch.setattr(os, "link", link)
    moved = first.move(out)
    other = out / f"a-{second.sha256[:12]}.png"
    for path, said in ((moved, first), (other, second)):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == said.sha256
        told = json.loads(path.with_name(f"{path.name}.json").read_bytes())
        assert told["file"]["sha256"] == said.sha256
        assert path.with_name(f"{path.name}.overlay.png").exists()
    assert len(list(out.iterdir())) == 6


def test_to_another_disk(tmp_path: Path, other_disk: Path, inspection: Inspection) -> None:
    out = other_disk / "out"
    made = make(tmp_path, "a.png", b"one", inspection)
    target = made.move(out)
    assert target.read_bytes() == b"one"
    assert target.stat().st_mtime_ns == made.file.stamp.modified_ns
    assert not made.file.path.exists()
    assert {path.name for path in out.iterdir()} == {"a.png", "a.png.json", "a.png.overlay.png"}


def test_image_is_not_moved_before_its_json_exists(tmp_path: Path, inspection: Inspection) -> None:
    (tmp_path / "out" / "a.png.json").mkdir(parents=True)
    made = make(tmp_path / "in", "a.png", b"one", inspection)
    with pytest.raises(OSError, match=r"a\.png\.json"):
        made.move(tmp_path / "out")
    assert made.file.path.read_bytes() == b"one"
    assert not (tmp_path / "out" / "a.png").exists()
