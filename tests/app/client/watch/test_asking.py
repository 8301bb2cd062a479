"""Requests that are lost on the way: for the picture's own sake, or as the server is away."""

import errno
import os
import threading
import time
from pathlib import Path

import httpx
import pytest

from app.client import Client
from app.client.watch.watcher import Watcher
from tests.app.client.watch.conftest import Heard, behind, full, ids, job, once, once_in_time, watching
from tests.waiting import eventually

pytestmark = pytest.mark.usefixtures("soon")

LOST = pytest.mark.parametrize("status", [None, 502, 504])


@LOST
def test_one_whose_request_is_lost_holds_up_no_other(
    url: str, folder: Path, tmp_path: Path, pictures: list[bytes], status: int | None
) -> None:
    """As a proxy resets what is too large for it. It stays: the way may be better another time."""
    out = tmp_path / "out"
    with behind(url, status, lambda request: request.content == pictures[0]) as (client, proxy):
        heard, complete = once_in_time(client, job(folder, f"lost-{status}", move_to=out))
    assert (complete, [one.file.name for one in heard.outcomes]) == (False, ["b.png"])
    assert proxy.refused == 5
    assert all(reason.startswith("a.png: ") for reason in heard.reasons)
    assert not (out / "failed").exists()
    assert [path.read_bytes() for path in folder.rglob("*.png")] == [pictures[0]]


@LOST
def test_one_whose_request_is_lost_is_inspected_when_it_comes_through(
    url: str, folder: Path, pictures: list[bytes], status: int | None
) -> None:
    def refuses(request: httpx.Request) -> bool:
        return request.content == pictures[0] and proxy.refused < 8

    with (
        behind(url, status, refuses) as (client, proxy),
        watching(client, job(folder, f"through-{status}")) as heard,
    ):
        eventually(lambda: len(heard.outcomes) >= 2)
    assert [one.file.name for one in heard.outcomes] == ["b.png", "a.png"]
    assert len(ids(heard)) == 2


@pytest.mark.parametrize("status", [None, 502, 503])
def test_while_the_server_is_away_the_others_are_not_sent_to_it(
    url: str, folder: Path, pictures: list[bytes], status: int | None
) -> None:
    asked: list[bytes] = []

    def refuses(request: httpx.Request) -> bool:
        asked.append(request.content)
        return True

    with behind(url, status, refuses) as (client, _):
        heard, complete = once(client, job(folder, f"away-{status}"))
    assert (complete, heard.outcomes, len(heard.reasons)) == (False, [], 1)
    assert pictures[1] not in asked


def test_those_that_are_lost_in_turn_are_said_once_each(
    url: str, folder: Path, pictures: list[bytes]
) -> None:
    with (
        behind(url, None, lambda request: request.content in pictures) as (client, proxy),
        watching(client, job(folder, "in turn")) as heard,
    ):
        eventually(lambda: proxy.refused >= 12)
    assert sorted(reason.partition(":")[0] for reason in heard.reasons) == ["a.png", "b.png"]


def test_one_that_fails_for_another_reason_is_said_again(
    client: Client, folder: Path, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "b.png").unlink()
    with watching(client, job(folder, "reasons")) as heard:
        for number in (errno.EIO, errno.EACCES, errno.EIO):
            with full(monkeypatch, folder, number) as tried:
                eventually(lambda tried=tried: len(tried) >= 4)  # type: ignore[misc]
        eventually(lambda: len(heard.outcomes) == 1)
    assert len(pictures) == 2
    # With the name of the JSON: those of the files that are written first are other ones each time.
    told = [f"[Errno {number}] {os.strerror(number)}" for number in (errno.EIO, errno.EACCES, errno.EIO)]
    assert heard.reasons == [f"a.png: {one}: '{folder / 'a.png.json'}'" for one in told]


def test_one_that_was_lost_before_comes_after_new_ones(
    url: str, folder: Path, tiny_images: dict[str, list[bytes]]
) -> None:
    lost, other = tiny_images["good"][:2]
    asked: list[bytes] = []

    def refuses(request: httpx.Request) -> bool:
        asked.extend([request.content] if request.method == "POST" else [])
        return request.content == lost

    stop = threading.Event()
    (folder / "a.png").write_bytes(lost)
    with behind(url, None, refuses) as (client, _):
        watcher = Watcher(client, job(folder, "after"), Heard())
        eventually(lambda: (watcher._round(stop), bool(asked))[1])
        (folder / "b.png").write_bytes(other)
        asked.clear()
        watcher._folder._settle = 0.0
        watcher._folder.look()
        time.sleep(0.1)  # both are due by then
        watcher._round(stop)
    assert asked == [other, lost]


def test_an_overlay_whose_answer_is_lost_is_gone_on_without(
    url: str, folder: Path, pictures: list[bytes]
) -> None:
    overlays: list[str] = []

    def refuses(request: httpx.Request) -> bool:
        overlays.extend([request.url.path] if request.url.path.endswith(".png") else [])
        return overlays[:1] == [request.url.path]

    heard = Heard()
    with behind(url, None, refuses) as (client, proxy):
        watcher = Watcher(client, job(folder, "overlay", overlay=True), heard)
        assert watcher.run(threading.Event(), once=True)
    assert ([one.file.name for one in heard.outcomes], proxy.refused) == (["b.png", "a.png"], 5)
    assert [one.overlay is None for one in heard.outcomes] == [False, True]
    assert len(pictures) == 2
