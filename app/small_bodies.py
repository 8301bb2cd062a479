"""Bodies that are no uploads: read whole before anything is done with them, under a limit and a deadline."""

import asyncio
from collections.abc import Iterable
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from app.problems import Problem

# JSON of ours is a few hundred bytes; the polygons of a region, on lines of their own, are the most.
MAX_BYTES: Final = 256 * 1024


async def read_ahead(receive: Receive, headers: Iterable[tuple[bytes, bytes]], seconds: float) -> Receive:
    """Read the body, and give what the application is to receive in its place.

    Args:
        receive: gives the body.
        headers: names in lower case, and values.
        seconds: how long the body may take altogether.

    Raises:
        Problem: too-large, whatever Content-Length says; upload-stalled where it takes too long.
        ClientDisconnect: the client has left before the end.
    """
    declared = dict(headers).get(b"content-length", b"").decode("latin-1")
    if declared.isdecimal() and (len(declared) > 18 or int(declared) > MAX_BYTES):
        raise _too_large()
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            more = True
            while more:
                message = await receive()
                if message["type"] != "http.request":
                    raise ClientDisconnect
                body += message.get("body", b"")
                more = message.get("more_body", False)
                if len(body) > MAX_BYTES:
                    raise _too_large()
    except TimeoutError:
        raise Problem(
            "upload-stalled", f"The body did not arrive within {seconds:g} s, the limit. Send it again."
        ) from None
    first: Message | None = {"type": "http.request", "body": bytes(body), "more_body": False}

    async def replay() -> Message:
        nonlocal first
        if first is None:
            return await receive()
        message, first = first, None
        return message

    return replay


def _too_large() -> Problem:
    return Problem("too-large", f"The body has more than {MAX_BYTES} bytes, the limit of this route.")
