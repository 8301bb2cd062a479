"""What stands in the way of pictures: whose fault it is, and that one holds up no other."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest
from fastapi import FastAPI

from app.client import (
    Client,
    DeadlineExceededError,
    InternalError,
    ProblemError,
    UploadStalledError,
)
from app.schemas.predict import Inspection
from tests.app.client.watch.conftest import (
    behind,
    ids,
    job,
    once,
    once_in_time,
    problem,
)

Images = dict[str, list[bytes]]
Serve = Callable[[FastAPI], AbstractContextManager[str]]

pytestmark = pytest.mark.usefixtures("soon")


def predicts(request: httpx.Request) -> bool:
    return request.method == "POST"


class TestRefusedOnTheWay:
    @pytest.mark.parametrize("status", [413, 400, 403])
    def test_one_alone_is_set_aside_and_others_go_on(
        self, url: str, folder: Path, tmp_path: Path, pictures: list[bytes], status: int
    ) -> None:
        out = tmp_path / "out"
        with behind(url, status, lambda request: request.content == pictures[0]) as (client, proxy):
            heard, complete = once(client, job(folder, "alone", move_to=out))
        assert complete, heard.reasons
        assert proxy.refused == 5
        assert [one.file.name for one in heard.outcomes] == ["b.png", "a.png"]
        assert (out / "failed" / "a.png").read_bytes() == pictures[0]
        told = json.loads((out / "failed" / "a.png.json").read_bytes())["problem"]
        assert (told["type"], told["status"]) == ("about:blank", status)
        assert f"status {status}, and no answer of FlowGauge" in told["detail"]
        assert heard.reasons
        assert all("a.png" in reason for reason in heard.reasons)

    @pytest.mark.parametrize("status", [413, 403])
    def test_where_no_picture_comes_through_none_is_to_blame(
        self, url: str, folder: Path, tmp_path: Path, pictures: list[bytes], status: int
    ) -> None:
        with behind(url, status, predicts) as (client, proxy):
            heard, complete = once(client, job(folder, "none", move_to=tmp_path / "out"))
            assert (complete, heard.outcomes) == (False, [])
            assert proxy.refused == 2 * 5
        assert sorted(path.read_bytes() for path in folder.rglob("*.png")) == sorted(pictures)
        with Client(url) as client:  # mended
            heard, complete = once(client, job(folder, "none", move_to=tmp_path / "out"))
        assert (complete, len(ids(heard))) == (True, 2)

    def test_once_ends_where_one_comes_too_late_again_and_again(
        self, url: str, folder: Path, tmp_path: Path, pictures: list[bytes]
    ) -> None:
        """It stays where it was: the link may be better another time."""
        out = tmp_path / "out"
        with behind(url, 408, lambda request: request.content == pictures[0]) as (client, _):
            heard, complete = once_in_time(client, job(folder, "too-late", move_to=out))
        assert (complete, [one.file.name for one in heard.outcomes]) == (False, ["b.png"])
        assert not (out / "failed").exists()
        assert [path.read_bytes() for path in folder.rglob("*.png")] == [pictures[0]]


class TestFailures:
    """A server that fails (500): at one picture, or at all."""

    @pytest.fixture
    def broken(self, monkeypatch: pytest.MonkeyPatch) -> dict[bytes, int]:
        """Pictures at which the server fails, with how often it was asked about each."""
        asked: dict[bytes, int] = {}
        inspect = Client.inspect

        def fails(client: Client, category: str, data: bytes, **wishes: Any) -> Inspection:
            if data not in asked:
                return inspect(client, category, data, **wishes)
            asked[data] += 1
            raise InternalError(problem("internal"))

        monkeypatch.setattr(Client, "inspect", fails)
        return asked

    def test_at_one_alone_set_it_aside(
        self, client: Client, folder: Path, tmp_path: Path, pictures: list[bytes], broken: dict[bytes, int]
    ) -> None:
        broken[pictures[0]] = 0
        out = tmp_path / "out"
        heard, complete = once(client, job(folder, "one", move_to=out))
        assert complete
        assert broken[pictures[0]] == 5
        assert [one.file.name for one in heard.outcomes] == ["b.png", "a.png"]
        told = json.loads((out / "failed" / "a.png.json").read_bytes())["problem"]
        assert (told["type"], told["status"]) == ("internal", 500)

    def test_at_all_set_none_aside(
        self, client: Client, folder: Path, tmp_path: Path, pictures: list[bytes], broken: dict[bytes, int]
    ) -> None:
        """A device that is lost until a restart, say: a night's pictures would be set aside otherwise."""
        broken |= dict.fromkeys(pictures, 0)
        out = tmp_path / "out"
        heard, complete = once_in_time(client, job(folder, "all", move_to=out))
        assert (complete, heard.outcomes) == (False, [])
        assert min(broken.values()) >= 5
        assert not (out / "failed").exists()
        broken.clear()  # it was started again
        heard, complete = once(client, job(folder, "all", move_to=out))
        assert (complete, len(ids(heard))) == (True, 2)


@pytest.mark.parametrize(
    ("name", "error"), [("upload-stalled", UploadStalledError), ("deadline-exceeded", DeadlineExceededError)]
)
def test_once_ends_where_the_server_has_too_little_time_again_and_again(
    url: str,
    folder: Path,
    pictures: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    error: type[ProblemError],
) -> None:
    asked = []

    def fails(*_: object, **__: object) -> NoReturn:
        asked.append(name)
        raise error(problem(name))

    monkeypatch.setattr(Client, "inspect", fails)
    with Client(url, patience=0) as client:
        heard, complete = once_in_time(client, job(folder, name))
    assert (complete, heard.outcomes) == (False, [])
    assert len(asked) >= 5 * len(pictures)
    assert not list(folder.rglob("*.json"))


class TestOverlays:
    @pytest.mark.parametrize(
        ("name", "error"), [("internal", InternalError), ("deadline-exceeded", DeadlineExceededError)]
    )
    def test_one_on_which_the_server_fails_is_gone_on_without(
        self,
        url: str,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        pictures: list[bytes],
        name: str,
        error: type[ProblemError],
    ) -> None:
        asked = []

        def fails(client: Client, identifier: str) -> NoReturn:
            asked.append(identifier)
            raise error(problem(name))

        monkeypatch.setattr(Client, "overlay", fails)
        with Client(url, patience=0) as client:
            heard, complete = once(client, job(folder, f"failing-{name}", overlay=True))
        assert complete
        assert len(ids(heard)) == 2
        assert [one.overlay for one in heard.outcomes] == [None, None]
        assert sorted(map(asked.count, set(asked))) == [5, 5]
        assert len(pictures) == 2
