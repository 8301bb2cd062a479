"""HTTP/1.1 over asyncio's streams, and no more: on few cores a full client would slow what it measures."""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

_LARGEST_HEAD = 64 * 1024
# uvicorn closes a connection after 5 idle seconds; one that is older might be closing as we write to it.
_FRESH_SECONDS = 4.0


class DisconnectedError(ConnectionError):
    """The server closed the connection, or could not be reached, before there was a whole answer."""


@dataclass(frozen=True)
class Answer:
    """What the server said.

    Attributes:
        status: HTTP status code.
        headers: by their names in lower case.
        body: the bytes after them.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


class Connection:
    """A connection that is kept alive, opened when it is first used and again when the server has closed it.

    Args:
        port: on this machine.
    """

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
            self.close()  # what still comes would be taken for the next answer
            raise
        self._used = time.monotonic()
        if answer.headers.get("connection") == "close":
            self.close()
        return answer

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is not None:
            idle = time.monotonic() - self._used
            if self._streams[0].at_eof() or self._streams[1].is_closing() or idle > _FRESH_SECONDS:
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

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Pool:
    """Connections for requests that do not wait for each other: as many as are answered at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[Connection] = []

    async def request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """As `Connection.request`, over the connection that was used last."""
        connection = self._idle.pop() if self._idle else Connection(self._port)
        answer = await connection.request(method, path, body, headers)
        self._idle.append(connection)
        return answer

    def close(self) -> None:
        """Close all connections that are idle."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()


async def _read(reader: asyncio.StreamReader) -> Answer:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    status = int(first.split(" ", 2)[1])
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    if status in (204, 304):
        return Answer(status, headers, b"")
    if headers.get("transfer-encoding") == "chunked":
        return Answer(status, headers, await _read_chunks(reader))
    return Answer(status, headers, await reader.readexactly(int(headers["content-length"])))


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    chunks = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        chunks.append((await reader.readexactly(size + 2))[:-2])
    await reader.readexactly(2)
    return b"".join(chunks)
