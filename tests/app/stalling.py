"""A client that takes a part of an answer, and then neither takes nor says anything."""

import asyncio

from starlette.types import Message


class Stalling:
    """Takes so many messages, which it keeps."""

    def __init__(self, takes: int) -> None:
        self.takes = takes
        self.messages: list[Message] = []

    async def send(self, message: Message) -> None:
        """Take a message, as the server's `send`."""
        if len(self.messages) == self.takes:
            await asyncio.Event().wait()  # for ever
        self.messages.append(message)


async def receive() -> Message:
    """Say nothing, as the server's `receive`."""
    await asyncio.Event().wait()
    raise AssertionError
