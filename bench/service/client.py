"""A minimal HTTP/1.1 client over asyncio: on few cores a full one would slow what it measures."""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

_LARGEST_HEAD = 64 * 1024
# uvicorn closes a connection after 5 idle seconds; an older one might close while we write to it.
_FRESH_SECONDS = 4.0


class DisconnectedError(ConnectionError):
    """The connection was closed, or could not be opened, before there was a whole answer."""


@dataclass(frozen=True)
class Answer:
    """Status code, headers by their names in lower case, and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The parsed body."""
        return json.loads(self.body)


class Connection:
    """A kept-alive connection to a port of this machine, opened on use and reopened when it was closed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._used = 0.0

    async def request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request and read the whole answer. Nothing is tried twice.

        Raises:
            DisconnectedError: there was no whole answer.
        """
        lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        try:
            reader, writer = await self._open()
            writer.write("\r\n".join([*lines, "\r\n"]).encode() + body)
            answer = await _read(reader)
        except (OSError, asyncio.IncompleteReadError) as error:
            self.close()
            raise DisconnectedError(f"no answer to {method} {path}: {error!r}") from error
        except asyncio.CancelledError:
            self.close()  # otherwise the rest would be taken for the next answer
            raise
        self._used = time.monotonic()
        if answer.headers.get("connection") == "close":
            self.close()
        return answer

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is not None:
            reader, writer = self._streams
            if reader.at_eof() or writer.is_closing() or time.monotonic() - self._used > _FRESH_SECONDS:
                self.close()
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=_LARGEST_HEAD)
        return self._streams

    def close(self) -> None:
        """Close it; the next request opens it again."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


async def _read(reader: asyncio.StreamReader) -> Answer:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    status = int(first.split(" ", 2)[1])
    pairs = (line.partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    if status in (204, 304):
        return Answer(status, headers, b"")
    return Answer(status, headers, await reader.readexactly(int(headers["content-length"])))
