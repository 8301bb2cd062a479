import asyncio
import json
from collections.abc import Callable

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from app.database.engine import Database
from app.events import log
from app.events.feed import Feed
from app.events.log import EventSelector, NewEvent
from app.events.stream import FeedResponse
from app.http import responses

pytestmark = pytest.mark.anyio


def add(database: Database, count: int) -> None:
    new = [NewEvent("inspection", "bottle", None, "PASS", json.dumps({"n": n})) for n in range(count)]
    with database.write() as connection:
        log.append(connection, new)


class Client:
    """A client that takes a number of messages and leaves on demand."""

    def __init__(self, takes: int = 10**6) -> None:
        self.takes = takes
        self.messages: list[Message] = []
        self.leave = asyncio.Event()

    async def send(self, message: Message) -> None:
        if len(self.messages) == self.takes:
            await asyncio.Event().wait()  # for ever
        self.messages.append(message)

    async def receive(self) -> Message:
        await self.leave.wait()
        return {"type": "http.disconnect"}

    @property
    def text(self) -> str:
        return b"".join(message.get("body", b"") for message in self.messages).decode()


async def use(database: Database, client: Client, act: Callable[[Feed], None] = lambda _: None) -> Feed:
    """Stream to a client and run an action after its first event."""
    feed = Feed(database, 1, 100)
    await feed.open()
    try:
        async with asyncio.timeout(30):
            response = FeedResponse(feed, EventSelector(), 0, None, lambda: True)
            sending = asyncio.create_task(response({"type": "http"}, client.receive, client.send))
            while len(client.messages) < 3 and not sending.done():
                await asyncio.sleep(0.005)
            act(feed)
            await sending
    finally:
        assert feed.readers == 0
        await feed.close()
    return feed


async def test_stream_is_complete(database: Database) -> None:
    add(database, 2)
    client = Client()
    feed = await use(database, client, Feed.end)
    first, second = feed.cursors.at(1), feed.cursors.at(2)
    assert client.messages[0]["status"] == 200
    told = [block for block in client.text.split("\n\n") if "event: position" not in block]
    assert told == [
        "retry: 2000",
        f'id: {first}\nevent: inspection\ndata: {{"n": 0}}',
        f'id: {second}\nevent: inspection\ndata: {{"n": 1}}',
        ": the server is stopping",
        "",
    ]
    assert client.messages[-1]["more_body"] is False
    assert feed.sent == 2


async def test_stalled_reader_is_disconnected(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "STALLED_SECONDS", 0.05)
    add(database, 500)
    with pytest.raises(ClientDisconnect):
        await use(database, Client(takes=3))


async def test_departed_reader_is_released(database: Database) -> None:
    client = Client()
    assert (await use(database, client, lambda _: client.leave.set())).dropped["slow"] == 0
