import asyncio
from collections.abc import Iterable

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from app.problems import Problem
from app.small_bodies import MAX_BYTES, read_ahead


def client(messages: Iterable[Message]) -> Receive:
    """A client that sends messages and then nothing more."""
    left = iter(messages)

    async def receive() -> Message:
        for message in left:
            return message
        await asyncio.Event().wait()
        raise AssertionError

    return receive


def chunk(body: bytes, more: bool = True) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


def read(messages: Iterable[Message], length: bytes | None = None, seconds: float = 60) -> Receive:
    headers = [] if length is None else [(b"content-length", length)]
    return asyncio.run(read_ahead(client(messages), headers, seconds))


def test_gives_the_body_once_and_then_what_comes_after_it() -> None:
    async def use() -> list[Message]:
        messages = [chunk(b"ab"), chunk(b""), chunk(b"cd", False), {"type": "http.disconnect"}]
        receive = await read_ahead(client(messages), [], 60)
        return [await receive(), await receive()]

    assert asyncio.run(use()) == [chunk(b"abcd", False), {"type": "http.disconnect"}]


def test_the_largest_body_and_one_byte_more() -> None:
    read([chunk(b"x" * MAX_BYTES, False)], str(MAX_BYTES).encode())
    for length in (None, b"1", b"-5"):  # whatever it says
        with pytest.raises(Problem, match=f"more than {MAX_BYTES} bytes") as caught:
            read([chunk(b"x" * MAX_BYTES), chunk(b"x", False)], length)
        assert caught.value.name == "too-large"


@pytest.mark.parametrize("length", [str(MAX_BYTES + 1).encode(), b"9" * 5000])
def test_is_refused_for_what_it_says_before_a_byte_has_come(length: bytes) -> None:
    with pytest.raises(Problem, match="more than"):
        read([], length)


def test_one_that_stops_is_given_up() -> None:
    with pytest.raises(Problem, match=r"did not arrive within 0.05 s") as caught:
        read([chunk(b"x")], b"2", 0.05)
    assert caught.value.name == "upload-stalled"


def test_a_client_that_leaves_is_left() -> None:
    with pytest.raises(ClientDisconnect):
        read([chunk(b"x"), {"type": "http.disconnect"}])
