"""Requests that are lost on the way: for the picture's own sake, or as the server is away."""

from pathlib import Path

import httpx
import pytest

from tests.app.client.watch.conftest import behind, ids, job, once, once_in_time, watching
from tests.support.waiting import eventually

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
