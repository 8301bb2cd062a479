"""The watcher against a real service, in one process; tests/system/test_watch.py kills it."""

import itertools
import json
import os
from pathlib import Path
from unittest.mock import ANY

import pytest

from app.client import Client, Inspection
from app.client.watch.folder import Stamp
from tests.app.client.conftest import Network, problem
from tests.app.client.watch.conftest import job, once, watching
from tests.support.waiting import eventually

Images = dict[str, list[bytes]]


def require_kept(client: Client, station: str, expected: list[str]) -> None:
    for identifier in expected:
        client.inspection(identifier)  # filed
    assert sorted(one.inspection_id for one in client.inspections(station=station)) == sorted(expected)


def test_images_stay_and_are_inspected_once(client: Client, folder: Path, tiny_images: Images) -> None:
    for number, data in enumerate(tiny_images["good"][:3]):
        (folder / f"{number}.png").write_bytes(data)
    (folder / "bad.png").write_bytes(b"no image")
    heard, complete = once(client, job(folder, "stay", overlay=True))
    assert not complete
    assert len(heard.ids) == 3
    [bad] = [one for one in heard.outcomes if not isinstance(one.result, Inspection)]
    assert (bad.file.name, bad.file.quiet >= 0.5) == ("bad.png", True)
    assert json.loads((folder / "bad.png.json").read_bytes())["problem"]["type"] == "unsupported-media-type"
    assert (folder / "0.png.overlay.png").read_bytes().startswith(b"\x89PNG")
    again, complete = once(client, job(folder, "stay"))
    assert (again.outcomes, complete) == ([], True)
    require_kept(client, "stay", heard.ids)


def test_moved_images_keep_their_names(
    client: Client, folder: Path, tmp_path: Path, tiny_images: Images
) -> None:
    out = tmp_path / "out"
    (folder / "day").mkdir()
    latin = os.fsdecode(b"P-2_\xfc.png")  # as a camera's file server writes it
    for name in ("day/P-17_top.png", "note.overlay.png", latin):
        (folder / name).write_bytes(tiny_images["good"][0])
    (folder / "bad.png").write_bytes(b"no image")
    heard, complete = once(client, job(folder, "moved", move_to=out))
    assert (complete, len(heard.ids)) == (False, 3)
    assert {path.relative_to(out).as_posix() for path in out.rglob("*.*")} == {
        *("day/P-17_top.png", "day/P-17_top.png.json", latin, f"{latin}.json"),
        *("note.overlay.png", "note.overlay.png.json"),
        *("failed/bad.png", "failed/bad.png.json"),
    }
    assert json.loads((out / f"{latin}.json").read_bytes())["file"]["name"] == r"P-2_\udcfc.png"
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["watch.sqlite"]


def test_lost_answer_is_requested_again(
    client: Client, network: Network, folder: Path, pictures: list[bytes]
) -> None:
    network.lost = 3
    with watching(client, job(folder, "lost")) as heard:
        eventually(lambda: len(heard.outcomes) == 2)
    assert network.lost == 0
    assert len(set(heard.reasons)) == len(heard.reasons) > 0  # said once
    require_kept(client, "lost", heard.ids)
    assert len(pictures) == 2


def test_images_wait_while_the_server_is_away(
    client: Client, network: Network, folder: Path, tmp_path: Path, pictures: list[bytes]
) -> None:
    out = tmp_path / "out"
    network.refuse(None, lambda *_: True)
    heard, complete = once(client, job(folder, "away", move_to=out))
    assert (complete, heard.outcomes, len(heard.reasons)) == (False, [], 1)
    assert "no answer" in heard.reasons[0]
    assert not list(folder.glob("*.png"))
    network.reset()
    heard, complete = once(client, job(folder, "away", move_to=out, patterns=("*.jpg",)))
    assert (complete, sorted(heard.names)) == (True, ["a.png", "b.png"])
    assert [(out / name).read_bytes() for name in ("a.png", "b.png")] == pictures


def test_taken_images_need_a_watcher_that_moves(folder: Path, client: Client) -> None:
    left = folder / ".flowgauge" / "taken" / "left"
    left.mkdir(parents=True)  # as of an image that was moved on when its watcher was killed
    assert once(client, job(folder, "taken")) == (ANY, True)
    (left / "x.png").write_bytes(b"x")
    with pytest.raises(FileExistsError, match="finish them with a watcher with --move-to first"):
        once(client, job(folder, "taken"))


@pytest.mark.parametrize("refusal", [None, (413, "<html>nginx</html>"), problem("internal")])
def test_image_that_fails_delays_no_other(
    client: Client,
    network: Network,
    folder: Path,
    tmp_path: Path,
    pictures: list[bytes],
    refusal: tuple[int, str] | None,
) -> None:
    """As a proxy refuses what is too large for it: the way may be better another time."""
    out = tmp_path / "out"
    network.refuse(refusal, lambda _, body: body == pictures[0])
    one = job(folder, f"lost-{refusal and refusal[0]}", move_to=out)
    heard, complete = once(client, one)
    assert (complete, heard.names, network.refused) == (False, ["b.png"], 5)
    assert not (out / "failed").exists()
    assert heard.reasons
    assert all(reason.startswith("a.png: ") for reason in heard.reasons)
    network.reset()
    assert once(client, one)[0].names == ["a.png"]


def test_busy_server_receives_no_further_images(
    client: Client, network: Network, folder: Path, pictures: list[bytes]
) -> None:
    network.refuse(problem("queue-full"))
    heard, complete = once(client, job(folder, "busy"))
    assert (complete, heard.outcomes, heard.reasons, network.refused) == (False, [], ["d"], 1)
    assert len(pictures) == 2


def test_incomplete_file_is_waited_for(
    client: Client, network: Network, folder: Path, tiny_images: Images
) -> None:
    """The camera pauses after each piece until it counts as whole, and goes on once it was asked about."""
    data = tiny_images["good"][0]
    step = len(data) // 6 + 1
    pieces = [data[start : start + step] for start in range(0, len(data), step)]
    readings = itertools.count()
    with (folder / "a.png").open("wb", buffering=0) as file:

        def go_on(method: str, _: bytes) -> bool:
            if method == "POST":
                file.write(b"".join(pieces[len(network.posted) + 1 :][:1]))
            return False

        network.refuse(None, go_on)
        file.write(pieces[0])
        # Whenever it is read it has gone on by twice the time after which a picture counts as whole.
        heard, complete = once(client, job(folder, "slow"), clock=lambda: 0.1 * next(readings))
    assert complete
    assert network.posted == [data[: step * number] for number in range(1, 7)]
    assert len(heard.ids) == len(heard.outcomes) == 1


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize(
    "data", [b"no image", b"\x89PNG\r\n\x1a\n" + 50 * b"\0"], ids=["no picture", "a damaged one"]
)
def test_undecodable_image_is_sent_twice(
    client: Client, network: Network, folder: Path, tmp_path: Path, data: bytes, moved: bool
) -> None:
    readings = itertools.count()
    (folder / "bad.png").write_bytes(data)
    one = job(folder, "bad", move_to=tmp_path / "out" if moved else None)
    # However long an answer takes: the ten times are fifty readings.
    heard, _ = once(client, one, clock=lambda: 0.01 * next(readings))
    assert network.posted == [data, data]
    [outcome] = heard.outcomes
    assert (isinstance(outcome.result, Inspection), outcome.file.quiet >= 0.5) == (False, True)


def test_file_written_to_after_it_was_found_waits(
    client: Client, network: Network, folder: Path, pictures: list[bytes], tiny_images: Images
) -> None:
    def overwrite(method: str, body: bytes) -> bool:
        if (method, body) == ("POST", pictures[0]):
            (folder / "b.png").write_bytes(tiny_images["good"][2])
        return False

    network.refuse(None, overwrite)
    heard, complete = once(client, job(folder, "again"))
    assert complete
    assert [(one.file.name, one.file.stamp) for one in heard.outcomes] == [
        (name, Stamp.of(folder / name)) for name in ("a.png", "b.png")
    ]
    require_kept(client, "again", heard.ids)


def test_folder_that_disappears_and_returns(client: Client, folder: Path, tiny_images: Images) -> None:
    elsewhere = folder.with_name("elsewhere")
    with watching(client, job(folder, "gone")) as heard:
        folder.rename(elsewhere)
        eventually(lambda: bool(heard.reasons))
        (elsewhere / "a.png").write_bytes(tiny_images["good"][0])
        elsewhere.rename(folder)
        eventually(lambda: bool(heard.outcomes))
    assert "camera" in heard.reasons[0]
