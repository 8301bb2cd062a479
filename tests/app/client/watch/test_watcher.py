"""The watcher against a real service, in one process; tests/system/test_watch.py kills it."""

import itertools
import json
import os
import re
import shutil
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.client import Client
from app.client.watch import watcher as module
from app.client.watch.folder import Found, Stamp
from app.client.watch.outcome import Outcome
from app.client.watch.watcher import Watcher
from app.schemas.predict import Inspection
from tests.app.client.conftest import Network
from tests.app.client.watch.conftest import Heard, Refuses, behind, ids, job, once
from tests.support.waiting import eventually

Images = dict[str, list[bytes]]
Serve = Callable[[FastAPI], AbstractContextManager[str]]
Losing = Callable[[str, int], AbstractContextManager[Network]]


def noting(asked: list[bytes]) -> Refuses:
    """Notes the pictures that are sent, and refuses none."""

    def refuses(request: httpx.Request) -> bool:
        asked.extend([request.content] if request.method == "POST" else [])
        return False

    return refuses


def kept(client: Client, station: str) -> list[str]:
    return sorted(one.inspection_id for one in client.inspections(station=station))


def expect_kept(client: Client, station: str, expected: list[str]) -> None:
    for identifier in expected:
        client.inspection(identifier)  # filed
    assert kept(client, station) == sorted(expected)


def test_pictures_stay_and_are_inspected_once(client: Client, folder: Path, tiny_images: Images) -> None:
    for number, data in enumerate(tiny_images["good"][:3]):
        (folder / f"{number}.png").write_bytes(data)
    (folder / "bad.png").write_bytes(b"no image")
    heard, complete = once(client, job(folder, "stay", overlay=True))
    assert complete
    assert len(ids(heard)) == 3
    [bad] = [one for one in heard.outcomes if one.problem is not None]
    assert (bad.file.name, bad.file.quiet >= 0.5) == ("bad.png", True)
    assert json.loads((folder / "bad.png.json").read_bytes())["problem"]["type"] == "unsupported-media-type"
    assert (folder / "0.png.overlay.png").read_bytes().startswith(b"\x89PNG")
    again, complete = once(client, job(folder, "stay"))
    assert (again.outcomes, complete) == ([], True)
    expect_kept(client, "stay", ids(heard))


def test_a_name_with_another_picture_is_a_new_file(client: Client, folder: Path, tiny_images: Images) -> None:
    made = []
    for data in tiny_images["good"][:3]:
        (folder / "last.png").write_bytes(data)
        made += ids(once(client, job(folder, "same-name"))[0])
    assert len(set(made)) == 3
    expect_kept(client, "same-name", made)


def test_what_was_dealt_with_before_is_not_read_again(
    client: Client, folder: Path, tiny_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.png").write_bytes(tiny_images["good"][0])
    once(client, job(folder, "read-once"))
    heard, stop, reads, read = Heard(), threading.Event(), [], Found.read
    watcher = Watcher(client, job(folder, "read-once"), heard)

    def counted(found: Found) -> bytes | None:
        reads.append(found.name)
        return read(found)

    monkeypatch.setattr(Found, "read", counted)
    (folder / "b.png").write_bytes(tiny_images["good"][1])
    assert watcher.run(stop, once=True)
    (folder / "c.png").write_bytes(tiny_images["good"][2])
    assert watcher.run(stop, once=True)
    assert ([one.file.name for one in heard.outcomes], sorted(reads)) == (
        ["b.png", "c.png"],
        ["b.png", "c.png"],
    )


def test_two_names_or_two_folders_with_one_picture_are_two_files(
    client: Client, folder: Path, tmp_path: Path, tiny_images: Images
) -> None:
    (tmp_path / "other").mkdir()
    for path in (folder / "a.png", folder / "b.png", tmp_path / "other" / "a.png"):
        path.write_bytes(tiny_images["good"][0])
    made = [one for root in (folder, tmp_path / "other") for one in ids(once(client, job(root, "twins"))[0])]
    assert len(set(made)) == 3
    expect_kept(client, "twins", made)


def test_moved_pictures_with_their_names_and_parts(
    client: Client, folder: Path, tmp_path: Path, tiny_images: Images
) -> None:
    out = tmp_path / "out"
    (folder / "day").mkdir()
    (folder / "day" / "P-17_top.png").write_bytes(tiny_images["defect"][0])
    (folder / "unnamed.png").write_bytes(tiny_images["good"][0])
    (folder / "bad.png").write_bytes(b"no image")
    part = re.compile(r"(P-\d+)_")
    heard, complete = once(client, job(folder, "moved", move_to=out, part=part))
    assert complete
    assert {path.relative_to(out).as_posix() for path in out.rglob("*.*")} == {
        *("day/P-17_top.png", "day/P-17_top.png.json", "unnamed.png", "unnamed.png.json"),
        *("failed/bad.png", "failed/bad.png.json"),
    }
    assert {one.inspection.part_id for one in heard.outcomes if one.inspection is not None} == {"P-17", None}
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["watch.sqlite"]


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (r"(\d+)", {"17", "8", "2026"}),
        (r"(\d+)[^/]*$", {"17", "8", None}),
        (r"^P-(\d+)", {"17", None}),
        (r"/(\d+)/", {"11"}),
        (r"^2026/11/(.*)\.", {"30/P-17_top", "30/top", "30/8"}),
        (r"^(P-\d+)?", {"P-17", None}),
    ],
)
def test_a_part_is_searched_in_the_name_and_then_in_the_path(
    client: Client, folder: Path, tiny_images: Images, part: str, expected: set[str | None]
) -> None:
    """As cameras make a folder a day, whose numbers are those of no part where the name has one."""
    (folder / "2026/11/30").mkdir(parents=True)
    for name in ("P-17_top.png", "top.png", "8.png"):
        (folder / "2026/11/30" / name).write_bytes(tiny_images["good"][0])
    heard, complete = once(client, job(folder, f"dated {part}", part=re.compile(part)))
    assert (complete, len(ids(heard))) == (True, 3)
    assert {one.inspection.part_id for one in heard.outcomes if one.inspection is not None} == expected


def test_a_lost_answer_is_asked_for_again(
    url: str, client: Client, folder: Path, tiny_images: Images, losing: Losing
) -> None:
    (folder / "a.png").write_bytes(tiny_images["good"][0])
    with losing(url, 3) as network, Client(network.url, patience=0) as unlucky:
        assert not once(unlucky, job(folder, "lost"))[1]
        heard = Heard()
        # A real one goes on by itself.
        stop = threading.Event()
        running = threading.Thread(target=Watcher(unlucky, job(folder, "lost"), heard).run, args=(stop,))
        running.start()
        eventually(lambda: bool(heard.outcomes))
        stop.set()
        running.join()
    assert heard.reasons
    assert len(set(heard.reasons)) == len(heard.reasons)  # said once
    expect_kept(client, "lost", ids(heard))


def test_while_the_server_is_away_pictures_wait(folder: Path, tmp_path: Path, tiny_images: Images) -> None:
    (folder / "a.png").write_bytes(tiny_images["good"][0])
    with Client("http://127.0.0.1:1", patience=0) as nobody:
        heard, complete = once(nobody, job(folder, "away", move_to=tmp_path / "out"))
    assert not complete
    assert heard.outcomes == []
    assert "no answer" in heard.reasons[0]
    [taken] = folder.rglob("*.png")
    assert taken.read_bytes() == tiny_images["good"][0]


def test_what_is_half_written_is_waited_for(
    client: Client, folder: Path, tiny_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The camera pauses after each piece until it counts as whole, and goes on once it was asked about."""
    monkeypatch.setattr(module, "_LONGEST_SECONDS", 0.01)
    data = tiny_images["good"][0]
    step = len(data) // 6 + 1
    pieces = [data[start : start + step] for start in range(0, len(data), step)]
    heard, inspect, readings = Heard(), Client.inspect, itertools.count()
    asked: list[bytes] = []

    with (folder / "a.png").open("wb", buffering=0) as file:

        def inspect_and_go_on(client: Client, category: str, image: bytes, **wishes: Any) -> Inspection:
            asked.append(image)
            try:
                return inspect(client, category, image, **wishes)
            finally:
                file.write(b"".join(pieces[len(asked) : len(asked) + 1]))

        monkeypatch.setattr(Client, "inspect", inspect_and_go_on)
        file.write(pieces[0])
        # Whenever it is read it has gone on by twice the time after which a picture counts as whole.
        watcher = Watcher(client, job(folder, "slow"), heard, clock=lambda: 0.1 * next(readings))
        assert watcher.run(threading.Event(), once=True)
    assert asked == [data[: step * number] for number in range(1, 7)]
    [outcome] = heard.outcomes
    assert outcome.inspection is not None


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize(
    "data", [b"no image", b"\x89PNG\r\n\x1a\n" + 50 * b"\0"], ids=["no picture", "a damaged one"]
)
def test_what_cannot_be_decoded_is_sent_twice(
    url: str, folder: Path, tmp_path: Path, data: bytes, moved: bool
) -> None:
    """As soon as it seems whole, and at last: a damaged one is no load on the server and the network."""
    asked, heard, readings = list[bytes](), Heard(), itertools.count()
    options = {"move_to": tmp_path / "out"} if moved else {}
    (folder / "bad.png").write_bytes(data)
    with behind(url, 502, noting(asked)) as (client, _):
        # However long an answer takes: the ten times are fifty readings.
        watcher = Watcher(client, job(folder, "bad", **options), heard, clock=lambda: 0.01 * next(readings))
        assert watcher.run(threading.Event(), once=True)
    assert asked == [data, data]
    [outcome] = heard.outcomes
    assert (outcome.problem is not None, outcome.file.quiet >= 0.5) == (True, True)


def test_what_is_written_to_again_since_it_was_found_is_waited_for(
    client: Client, folder: Path, tiny_images: Images
) -> None:
    first, second, third = tiny_images["good"][:3]

    class Camera(Heard):
        def dealt_with(self, outcome: Outcome) -> None:
            super().dealt_with(outcome)
            if outcome.file.name == "a.png":
                (folder / "b.png").write_bytes(third)

    (folder / "a.png").write_bytes(first)
    (folder / "b.png").write_bytes(second)
    for number, name in enumerate(("a.png", "b.png")):
        os.utime(folder / name, ns=(number, number))
    heard = Camera()
    assert Watcher(client, job(folder, "again"), heard).run(threading.Event(), once=True)
    assert [(one.file.name, one.file.stamp) for one in heard.outcomes] == [
        (name, Stamp.of(folder / name)) for name in ("a.png", "b.png")
    ]
    expect_kept(client, "again", ids(heard))


def test_a_folder_that_goes_away_and_comes_back(client: Client, folder: Path, tiny_images: Images) -> None:
    heard, stop = Heard(), threading.Event()
    watcher = Watcher(client, job(folder, "gone"), heard)
    folder.rename(folder.with_name("elsewhere"))
    running = threading.Thread(target=watcher.run, args=(stop,))
    running.start()
    eventually(lambda: bool(heard.reasons))
    (folder.with_name("elsewhere") / "a.png").write_bytes(tiny_images["good"][0])
    folder.with_name("elsewhere").rename(folder)
    eventually(lambda: bool(heard.outcomes))
    stop.set()
    running.join()
    assert "camera" in heard.reasons[0]


def test_a_json_that_cannot_be_written_is_tried_again(
    client: Client, folder: Path, tiny_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LONGEST_SECONDS", 0.1)
    (folder / "a.png").write_bytes(tiny_images["good"][0])
    (folder / "a.png.json").mkdir()
    heard, stop = Heard(), threading.Event()
    running = threading.Thread(target=Watcher(client, job(folder, "no-json"), heard).run, args=(stop,))
    running.start()
    eventually(lambda: bool(heard.reasons))
    shutil.rmtree(folder / "a.png.json")
    eventually(lambda: bool(heard.outcomes))
    stop.set()
    running.join()
    expect_kept(client, "no-json", ids(heard))


@pytest.mark.parametrize("options", [{}, {"patterns": ("*.jpg",)}])
def test_what_was_taken_before_is_dealt_with_whatever_is_asked_for_now(
    client: Client, folder: Path, tmp_path: Path, tiny_images: Images, options: dict[str, object]
) -> None:
    station = f"taken-{len(options)}"
    (folder / "a.png").write_bytes(tiny_images["good"][0])
    out = tmp_path / "out"
    with Client("http://127.0.0.1:1", patience=0) as nobody:
        once(nobody, job(folder, station, move_to=out))
    assert not (folder / "a.png").exists()
    if options:
        options["move_to"] = out
    heard, complete = once(client, job(folder, station, **options))
    assert (complete, len(ids(heard))) == (True, 1)
    assert ((out if options else folder) / "a.png").read_bytes() == tiny_images["good"][0]


def test_a_name_that_is_not_utf_8(client: Client, folder: Path, tmp_path: Path, tiny_images: Images) -> None:
    """As a camera's file server with Latin-1 writes it."""
    for name in (b"P\xfc_1.png", b"P-2_\xfc.png", b"P-3_1.png"):
        (folder / os.fsdecode(name)).write_bytes(tiny_images["good"][0])
    out = tmp_path / "out"
    part = re.compile("(P.*)_")
    heard, complete = once(client, job(folder, "latin", move_to=out, part=part))
    assert complete
    parts = {None if one.inspection is None else one.inspection.part_id for one in heard.outcomes}
    assert parts == {None, "P-2", "P-3"}
    told = json.loads((out / "failed" / os.fsdecode(b"P\xfc_1.png.json")).read_bytes())
    assert told["file"]["name"] == r"P\udcfc_1.png"
    assert told["problem"]["detail"] == r"The part's id in the name is P\udcfc, which is not UTF-8."
    heard, complete = once(client, job(folder, "latin"))
    assert (heard.outcomes, complete) == ([], True)
