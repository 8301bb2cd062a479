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


def read(messages: Iterable[Message], length: bytes | None = None, seconds: float = 5) -> Receive:
    headers = [] if length is None else [(b"content-length", length)]
    return asyncio.run(read_ahead(client(messages), headers, seconds))


def test_gives_the_body_once_and_then_what_comes_after_it() -> None:
    async def use() -> list[Message]:
        messages = [chunk(b"ab"), chunk(b""), chunk(b"cd", False), {"type": "http.disconnect"}]
        receive = await read_ahead(client(messages), [], 5)
        return [await receive(), await receive()]

    assert asyncio.run(use()) == [chunk(b"abcd", False), {"type": "http.disconnect"}]


def test_the_largest_body_and_one_byte_more() -> None:
    read([chunk(b"x" * MAX_BYTES, False)], str(MAX_BYTES).encode())
    with pytest.raises(Problem, match=f"more than {MAX_BYTES} bytes") as caught:
        read([chunk(b"x" * (MAX_BYTES + 1), False)])
    assert caught.value.name == "too-large"


def test_some_may_have_less() -> None:
    asyncio.run(read_ahead(client([chunk(b"x" * 10, False)]), [], 5, most=10))
    for length in (b"11", b"1"):
        headers = [(b"content-length", length)]
        with pytest.raises(Problem, match="more than 10 bytes"):
            asyncio.run(read_ahead(client([chunk(b"x" * 11, False)]), headers, 5, most=10))


@pytest.mark.parametrize("length", [str(MAX_BYTES + 1).encode(), b"9" * 5000])
def test_is_refused_for_what_it_says_before_a_byte_has_come(length: bytes) -> None:
    with pytest.raises(Problem, match="more than"):
        read([], length)


@pytest.mark.parametrize("length", [None, b"1", b"-5", b"x", "²".encode("latin-1")])
def test_is_refused_for_what_comes_whatever_it_says(length: bytes | None) -> None:
    endless = (chunk(b"x" * 60_000) for _ in range(1_000_000))
    with pytest.raises(Problem, match="more than"):
        read(endless, length)


def test_one_that_trickles_in_is_given_up() -> None:
    async def trickle() -> Message:
        await asyncio.sleep(0.02)
        return chunk(b"x")

    with pytest.raises(Problem, match="did not arrive within 0") as caught:
        asyncio.run(read_ahead(trickle, [], 0.1))
    assert caught.value.name == "upload-stalled"


def test_one_that_stops_is_given_up() -> None:
    with pytest.raises(Problem, match="did not arrive"):
        read([chunk(b"x")], b"2", 0.05)


def test_a_client_that_leaves_is_left() -> None:
    with pytest.raises(ClientDisconnect):
        read([chunk(b"x"), {"type": "http.disconnect"}])
