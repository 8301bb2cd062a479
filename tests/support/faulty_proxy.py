"""A TCP proxy whose connections can be cut, refused, or left without an answer."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from tests.support.ports import reserved_port

Address = tuple[str, int] | Path  # a host with a port, or a socket of this machine

_CHUNK: Final = 64 * 1024


class FaultyProxy:
    """Forwards connections to a server, in a thread of its own.

    Args:
        server: where to forward to.
        listen: path of the socket to listen on; without one, a free port of this machine.

    Attributes:
        port: of the proxy; 0 with `listen`.
    """

    def __init__(self, server: Address, listen: Path | None = None) -> None:
        self._server = server
        self._listen = listen
        self._holder: socket.socket | None = None
        self.port = 0
        if listen is None:
            self._holder, self.port = reserved_port()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._may_pass = asyncio.Event()
        self._may_pass.set()
        self._is_refusing = False

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self._holder is not None:
            self._holder.close()

    def cut(self) -> None:
        """Cut all connections at once, wherever they are."""
        self._call(self._cut)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Cut all connections, and each new one as soon as it opens."""
        self._is_refusing = True
        self.cut()
        try:
            yield
        finally:
            self._is_refusing = False

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Keep connections open, take new ones, and forward nothing until the end of the block."""
        self._call(self._may_pass.clear)
        try:
            yield
        finally:
            self._call(self._may_pass.set)

    def _call(self, function: Callable[[], None]) -> None:
        async def call() -> None:
            function()

        asyncio.run_coroutine_threadsafe(call(), self._loop).result()

    def _cut(self) -> None:
        for writer in tuple(self._open):
            writer.transport.abort()

    async def _start(self) -> None:
        if self._listen is None:
            self._listener = await asyncio.start_server(self._forward, "127.0.0.1", self.port)
        else:
            self._listen.parent.mkdir(exist_ok=True)
            self._listener = await asyncio.start_unix_server(self._forward, self._listen)
            self._listen.chmod(0o777)

    async def _stop(self) -> None:
        self._listener.close()
        self._may_pass.set()
        self._cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._open.add(writer)
        try:
            if not self._is_refusing:
                await self._connect(reader, writer)
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):  # the server is away, or the connection was cut
            if isinstance(self._server, Path):
                from_server, to_server = await asyncio.open_unix_connection(self._server)
            else:
                from_server, to_server = await asyncio.open_connection(*self._server)
            self._open.add(to_server)
            try:
                async with asyncio.TaskGroup() as group:
                    for source, target in ((reader, to_server), (from_server, writer)):
                        group.create_task(self._pump(source, target))
            except* OSError:
                pass
            finally:
                self._open.discard(to_server)
                to_server.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(_CHUNK):
            await self._may_pass.wait()
            target.write(data)
            await target.drain()
        with contextlib.suppress(OSError):
            target.write_eof()
