"""A service to be asked, and a network in front of it that loses answers."""

import asyncio
import inspect
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.client import AsyncClient, Client
from app.main import create_app
from app.settings import Settings

Serve = Callable[[FastAPI], AbstractContextManager[str]]


@pytest.fixture(scope="module")
def url(
    tiny_bundle_store: Path, serve_http: Serve, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A service with the tiny model and a history of its own."""
    history = tmp_path_factory.mktemp("asked") / "history"
    with serve_http(
        create_app(Settings(models=tiny_bundle_store, history=history, max_bytes=200_000))
    ) as url:
        yield url


@pytest.fixture(params=[Client, AsyncClient], ids=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Calls a method of a client of an address, once by each of the two clients; iterators come as lists."""

    def ask_async(url: str, method: str, *args: Any, key: str | None = None, **options: Any) -> Any:
        patience, ca = options.pop("patience", 30), options.pop("ca", None)

        async def go() -> Any:
            async with AsyncClient(url, key, patience=patience, ca=ca) as client:
                result = getattr(client, method)(*args, **options)
                return await result if inspect.isawaitable(result) else [item async for item in result]

        return asyncio.run(go())

    def ask_sync(url: str, method: str, *args: Any, key: str | None = None, **options: Any) -> Any:
        with Client(url, key, patience=options.pop("patience", 30), ca=options.pop("ca", None)) as client:
            result = getattr(client, method)(*args, **options)
            return list(result) if isinstance(result, Iterator) else result

    return ask_sync if request.param is Client else ask_async


class Network:
    """A proxy that loses the first answers: it passes a request on, takes the answer and hangs up.

    Args:
        url: of the server behind it.
        lost: how many answers.
    """

    def __init__(self, url: str, lost: int = 0) -> None:
        self._to = httpx.URL(url)
        self.lost = lost
        self.passed = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Network":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            with client, socket.create_connection((self._to.host, self._to.port or 80)) as server:
                server.sendall(self._request(client))
                answer = self._answer(server)
                if self.lost:
                    self.lost -= 1
                else:
                    self.passed += 1
                    client.sendall(answer)

    @classmethod
    def _request(cls, client: socket.socket) -> bytes:
        head, body = cls._message(client)
        return head + b"\r\nConnection: close\r\n\r\n" + body

    @classmethod
    def _answer(cls, server: socket.socket) -> bytes:
        head, body = cls._message(server)
        return head + b"\r\n\r\n" + body

    @staticmethod
    def _message(sender: socket.socket) -> tuple[bytes, bytes]:
        """Head and body of what is sent; not to the connection's end, for which a server may wait."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += sender.recv(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        length = int(lengths[0].split(b":")[1]) if lengths else 0
        while len(body) < length:
            body += sender.recv(65536)
        return head, body


@pytest.fixture(scope="session")
def losing() -> Callable[[str, int], AbstractContextManager[Network]]:
    """A network in front of a server that loses so many answers."""

    @contextmanager
    def make(url: str, lost: int) -> Iterator[Network]:
        with Network(url, lost) as network:
            yield network

    return make
