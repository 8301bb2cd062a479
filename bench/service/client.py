"""Minimal asyncio HTTP/1.1 client.

On few cores a complete client would slow the server that it measures.
"""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

_LARGEST_HEAD = 64 * 1024
# uvicorn closes a connection after 5 idle seconds, perhaps while a request is written to it.
_MAX_IDLE_SECONDS = 4.0


class DisconnectedError(ConnectionError):
    """The connection failed before the response was complete."""


@dataclass(frozen=True)
class Response:
    """Status code, headers by lower-case name, and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Parse the body."""
        return json.loads(self.body)


class Connection:
    """Persistent connection to a local port, opened on use and reopened after it was closed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._used = 0.0

    async def request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Response:
        """Send a request and read the whole response, without retries.

        Raises:
            DisconnectedError: the connection failed before that.
        """
        lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        try:
            reader, writer = await self._open()
            writer.write("\r\n".join([*lines, "\r\n"]).encode() + body)
            response = await _read(reader)
        except (OSError, asyncio.IncompleteReadError) as error:
            self.close()
            raise DisconnectedError(f"no response to {method} {path}: {error!r}") from error
        except asyncio.CancelledError:
            self.close()  # else the rest would be read as the next response
            raise
        self._used = time.monotonic()
        if response.headers.get("connection") == "close":
            self.close()
        return response

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is not None:
            reader, writer = self._streams
            if reader.at_eof() or writer.is_closing() or time.monotonic() - self._used > _MAX_IDLE_SECONDS:
                self.close()
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=_LARGEST_HEAD)
        return self._streams

    def close(self) -> None:
        """Close the connection; the next request opens it again."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


async def _read(reader: asyncio.StreamReader) -> Response:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    status = int(first.split(" ", 2)[1])
    pairs = (line.partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    if status in (204, 304):
        return Response(status, headers, b"")
    return Response(status, headers, await reader.readexactly(int(headers["content-length"])))
