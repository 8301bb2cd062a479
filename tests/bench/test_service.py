"""The scenarios see what they are there to see; `tests/system` runs swap and crash."""

import asyncio
import hashlib
import json
import sqlite3
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import cv2
import pytest

from bench.service import crash, fairness, overload, saturation, swap
from bench.service.client import Answer, Connection, DisconnectedError
from bench.service.load import Shot
from flows.fastflow.images import decode
from tests.conftest import picture
from tests.support.fleet import Fleet, make, unique

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def against(handler: Handler, use: Callable[[int], Awaitable[None]]) -> None:
    """Use a port at which a handler answers every connection, once."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await handler(reader, writer)
        writer.close()

    async def both() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            await use(server.sockets[0].getsockname()[1])

    asyncio.run(both())


def test_connection_is_opened_again_after_it_was_closed() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for last in (False, True):
            head = await reader.readuntil(b"\r\n\r\n")
            size = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:"))
            body = await reader.readexactly(size)
            close = b"Connection: close\r\n" if last else b""
            writer.write(b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s" % (close, len(body), body))

    async def use(port: int) -> None:
        async with Connection(port) as connection:
            for body in (b"one", b"two", b"three", b"four"):
                answer = await connection.request("POST", "/", body)
                assert (answer.status, answer.body) == (200, body)

    against(echo, use)


def test_half_an_answer_is_a_lost_connection() -> None:
    async def torn(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")

    async def use(port: int) -> None:
        async with Connection(port) as connection:
            with pytest.raises(DisconnectedError, match="GET /there"):
                await connection.request("GET", "/there")

    against(torn, use)


def test_unique_makes_another_file_of_the_same_image() -> None:
    jpeg = cv2.imencode(".jpg", picture(0))[1].tobytes()
    first, second = unique(jpeg, 1), unique(jpeg, 2)
    assert len({jpeg, first, second}) == 3
    assert (decode(first) == decode(jpeg)).all()


def test_version_may_be_active_until_the_next_activation_is_answered() -> None:
    timeline = swap.Timeline("a")
    timeline.switch("b", asked=10, answered=12)
    timeline.switch("a", asked=20, answered=21)
    assert timeline.active == "a"
    assert timeline.may_be_active("a", 11, 11.5)  # not answered yet
    assert timeline.may_be_active("b", 11, 11.5)
    assert not timeline.may_be_active("a", 12.5, 19.5)
    assert timeline.may_be_active("a", 11.5, 13)  # it began before
    assert timeline.may_be_active("a", 19.5, 20.5)
    assert not timeline.may_be_active("b", 1, 9)
    assert not timeline.may_be_active("b", 21.5, 22)
    assert not timeline.may_be_active("c", 0, 100)


def shot(status: int, seconds: float = 0.1, headers: dict[str, str] | None = None, **said: object) -> Shot:
    answer = Answer(status, headers or {}, json.dumps(said).encode()) if status else None
    return Shot("bottle", 0, 100.0, 100.0 + seconds, answer)


@pytest.mark.parametrize(
    ("seen", "fault"),
    [
        (shot(0), "connection was lost"),
        (shot(503), "503"),
        (shot(200, model={"category": "grid", "version": "v1"}, score=2.0), "answered as grid"),
        (shot(200, model={"category": "bottle", "version": "v2"}, score=2.0), "was not active"),
        (shot(200, model={"category": "bottle", "version": "v1"}, score=2.1), r"scored 2\.1 and not 2\.0"),
    ],
)
def test_swap_sees_a_wrong_answer(seen: Shot, fault: str) -> None:
    scores, timelines = {("bottle", "v1"): [2.0], ("bottle", "v2"): [2.0]}, {"bottle": swap.Timeline("v1")}
    timelines["grid"] = swap.Timeline("v1")
    right = shot(200, model={"category": "bottle", "version": "v1"}, score=2.00001)
    assert swap.fault(right, scores, timelines) == ""
    found = swap.fault(seen, scores, timelines)
    with pytest.raises(AssertionError, match=fault):
        raise AssertionError(found)


@pytest.mark.parametrize(
    ("seen", "fault"),
    [
        (shot(0), "lost their connection"),
        (shot(200, seconds=1.1), "after their deadline"),
        (shot(504), "504"),
        (shot(503), "without Retry-After"),
        (shot(500), "another status"),
    ],
)
def test_overload_sees_a_wrong_answer(seen: Shot, fault: str) -> None:
    right = [shot(200), shot(503, headers={"retry-after": "1"})]
    assert overload.faults(right, 1.0) == []
    (found,) = overload.faults([*right, seen], 1.0)
    assert fault in found
    assert found.startswith("1 of 3")


@pytest.mark.parametrize(
    ("flood", "few", "fault"),
    [
        (shot(200), shot(503, headers={"retry-after": "1"}), "1 of 1 requests of the category that"),
        (shot(200), shot(504), "1 of 3 requests were accepted and not answered"),
        (shot(500), shot(200), "1 of 3 requests had another status"),
    ],
)
def test_fairness_sees_a_wrong_answer(flood: Shot, few: Shot, fault: str) -> None:
    refused = shot(503, headers={"retry-after": "1"})
    assert fairness.faults([shot(200), refused], [shot(200)], 1.0) == []
    [found] = fairness.faults([refused, flood], [few], 1.0)
    assert found.startswith(fault)


@pytest.fixture
def history(tmp_path: Path) -> Path:
    for folder in ("pictures/ab", "maps/cd", "incoming", "journal"):
        (tmp_path / folder).mkdir(parents=True)
    sha256 = hashlib.sha256(b"picture").hexdigest()
    (tmp_path / "pictures/ab" / sha256).write_bytes(b"picture")
    (tmp_path / "maps/cd/one.npy").write_bytes(b"map")
    with sqlite3.connect(tmp_path / "history.sqlite") as connection:
        connection.execute("CREATE TABLE inspections (id TEXT, image_sha256 TEXT)")
        connection.execute("INSERT INTO inspections VALUES ('one', ?)", [sha256])
    connection.close()
    return tmp_path


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        ("rm pictures/ab/*", "1 rows have no picture"),
        ("printf other > pictures/ab/$(printf other | sha256sum | cut -c-64)",
         "1 pictures belong to no row"),
        ("for f in pictures/ab/*; do echo rotten > $f; done", "1 pictures do not have the bytes"),
        ("echo > incoming/x", "1 files are half-written"),
        ("echo > journal/000000000001.journal", "1 files are left in the journal"),
    ],
)  # fmt: skip
def test_loose_ends_are_seen(history: Path, damage: str, fault: str) -> None:
    assert crash.loose_ends(history, {"one"}) == (1, [])
    subprocess.run(["sh", "-c", damage], cwd=history, check=True)
    _, faults = crash.loose_ends(history, {"one"})
    assert len(faults) == 1
    assert fault in faults[0]


def test_an_answer_that_is_not_in_the_history_is_seen(history: Path) -> None:
    assert crash.loose_ends(history, {"one", "two"})[1] == ["1 answers are not in the database"]


@pytest.mark.slow
def test_saturation_and_fairness_run(tmp_path: Path) -> None:
    fleet: Fleet = make(tmp_path / "fleet", size=64, categories=2, versions=1)
    figures, _ = saturation.run(fleet, tmp_path / "saturation", clients=16, seconds=2)
    assert figures["images"] > 16
    figures, _ = fairness.run(fleet, tmp_path / "fairness", clients=100, seconds=2)
    assert figures["few_by_status"]["200"] > 0
