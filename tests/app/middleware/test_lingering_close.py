"""A response sent before the end of the request's body arrives."""

import asyncio
import socket
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from app.middleware.lingering_close import LingeringClose
from tests.support.serving import running

ANSWER = PlainTextResponse("too large", 413)


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer without reading the body."""
    await ANSWER(scope, receive, send)


async def read_and_answer(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive())["more_body"]:
        pass
    await ANSWER(scope, receive, send)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with running(uvicorn.Config(LingeringClose(refuse), port=0, log_config=None, lifespan="off")) as port:
        yield port


@pytest.mark.parametrize("head", ["HTTP/1.0\r\n", "HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"])
def test_client_that_sends_all_first_gets_the_response(port: int, head: str) -> None:
    body = bytes(8 * 1024 * 1024)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(f"POST / {head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.endswith(b"too large")


class Client:
    """A client that sends an endless body in pieces and records messages in order."""

    def __init__(self, piece: bytes = b"12345678", pieces: int = 1000) -> None:
        self.piece = piece
        self.pieces = pieces
        self.events: list[str] = []

    async def receive(self) -> Message:
        self.events.append("read")
        self.pieces -= 1
        if self.pieces < 0:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": self.piece, "more_body": self.pieces > 0}

    async def send(self, message: Message) -> None:
        ends = message["type"] == "http.response.body" and not message.get("more_body", False)
        self.events.append("end" if ends else message["type"].removeprefix("http.response."))

    def ask(self, app: LingeringClose, *headers: tuple[bytes, bytes]) -> list[str]:
        scope = {"type": "http", "method": "POST", "headers": [(b"content-length", b"8000"), *headers]}
        asyncio.run(app(scope, self.receive, self.send))
        return self.events


def test_response_is_sent_first_and_ends_after_the_body() -> None:
    assert Client(pieces=3).ask(LingeringClose(refuse)) == ["start", "body", "read", "read", "read", "end"]


def test_read_body_is_not_waited_for() -> None:
    assert Client(pieces=1).ask(LingeringClose(read_and_answer)) == ["read", "start", "end"]


def test_wait_is_limited() -> None:
    stalled = Client(pieces=0)
    assert stalled.ask(LingeringClose(refuse, max_seconds=0.01)) == ["start", "body", "read", "end"]


def test_client_that_expects_100_is_not_waited_for() -> None:
    assert Client().ask(LingeringClose(refuse), (b"expect", b"100-continue")) == ["start", "end"]
