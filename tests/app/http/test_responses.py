import asyncio

import pytest
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message

from app.errors.problems import Problem
from app.http import responses
from app.http.responses import PIECE_BYTES, AccountedResponse, LimitedStreamingResponse
from app.scheduling.admission import Admission
from app.scheduling.concurrency_limit import ConcurrencyLimit


class Stalling:
    """A client that takes a number of messages and then stalls."""

    def __init__(self, takes: int) -> None:
        self.takes = takes
        self.messages: list[Message] = []

    async def send(self, message: Message) -> None:
        if len(self.messages) == self.takes:
            await asyncio.Event().wait()  # for ever
        self.messages.append(message)


class Client(Stalling):
    """A client that records the reserved bytes at each message."""

    def __init__(self, admission: Admission, takes: int = 100) -> None:
        super().__init__(takes)
        self.admission = admission
        self.held: list[int] = []

    async def send(self, message: Message) -> None:
        await super().send(message)
        self.held.append(self.admission.bytes)


async def receive() -> Message:
    await asyncio.Event().wait()  # for ever
    raise AssertionError


def send(response: Response, client: Client) -> None:
    room = client.admission.reserve("tiny")
    room.hold(7)
    room.hold_images(1)
    asyncio.run(AccountedResponse(response, room)({"type": "http"}, receive, client.send))


def stream(places: ConcurrencyLimit, client: Stalling) -> None:
    response = LimitedStreamingResponse(places, None, iter([b"piece"] * 9))
    asyncio.run(response({"type": "http"}, receive, client.send))


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES, 10**6])
def test_whole_response_is_sent_and_counted(size: int) -> None:
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    client = Client(Admission(1, 10))
    send(Response(body, 201, {"X-Decision": "PASS"}, "image/png"), client)
    start, *pieces = client.messages
    headers = dict(start["headers"])
    assert start["status"] == 201
    assert headers[b"x-decision"] == b"PASS"
    assert headers[b"content-type"] == b"image/png"
    assert headers[b"content-length"] == str(size).encode()
    assert b"".join(piece["body"] for piece in pieces) == body
    assert max(len(piece["body"]) for piece in pieces) <= PIECE_BYTES
    assert [piece.get("more_body", False) for piece in pieces] == [True] * (len(pieces) - 1) + [False]
    assert client.held == [size] * len(client.messages)
    assert (client.admission.images, client.admission.bytes) == (0, 0)


@pytest.mark.parametrize("takes", [0, 1, 3])
def test_stalled_client_is_dropped(takes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "STALLED_SECONDS", 0.05)
    client = Client(Admission(1, 10), takes)
    with pytest.raises(ClientDisconnect):
        send(Response(bytes(10**6)), client)
    assert client.admission.bytes == 0


class Slow(Client):
    """A client that takes a piece now and then."""

    async def send(self, message: Message) -> None:
        await asyncio.sleep(0.02)
        await super().send(message)


def test_slow_client_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "STALLED_SECONDS", 0.1)
    monkeypatch.setattr("app.http.transfer_rate.MIN_RATE", 10 * PIECE_BYTES / 0.02)
    client = Slow(Admission(1, 10))
    with pytest.raises(ClientDisconnect):
        send(Response(bytes(50 * PIECE_BYTES)), client)
    assert len(client.messages) < 20
    assert client.admission.bytes == 0


def test_stalled_stream_frees_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "STALLED_SECONDS", 0.05)
    places, client = ConcurrencyLimit(1, "such stream are being sent"), Stalling(2)
    with pytest.raises(ClientDisconnect):
        stream(places, client)
    assert [message.get("body") for message in client.messages] == [None, b"piece"]
    stream(places, client := Stalling(100))
    assert b"".join(message.get("body", b"") for message in client.messages) == 9 * b"piece"


def test_stream_beyond_the_limit_is_refused() -> None:
    places, client = ConcurrencyLimit(1, "such stream are being sent"), Stalling(100)
    with places.hold(None), pytest.raises(Problem, match="1 such stream are being sent, the limit") as caught:
        stream(places, client)
    assert (caught.value.name, client.messages) == ("queue-full", [])
    assert places.held == 0  # nor is it the other's any more


def test_failed_response_frees_its_reservation() -> None:
    class Broken(Client):
        async def send(self, message: Message) -> None:
            raise OSError("the connection is reset", message["type"])

    client = Broken(Admission(1, 10))
    with pytest.raises(OSError, match="reset"):
        send(Response(b"answer"), client)
    assert (client.admission.images, client.admission.bytes) == (0, 0)
