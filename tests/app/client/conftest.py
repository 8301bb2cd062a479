"""A service to be asked, and a network before it that loses what it is told to."""

import asyncio
import inspect
import itertools
import json
import operator
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.auth.key_store import KeyStore
from app.auth.permissions import COMMAND_LINE
from app.client import AsyncClient, Client
from app.database.engine import Database
from app.errors import problems
from app.main import create_app
from app.schemas.access import Role
from app.settings import Settings

Serve = Callable[[ASGIApp], AbstractContextManager[str]]


class Network:
    """An app with a network before it, which loses answers and refuses requests when it is told to.

    Attributes:
        lost: of how many requests, from now on, the answer is lost after the app has carried them out.
        refused: how many did not come through.
        posted: the bodies that were posted, of those that came through.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.reset()

    def reset(self) -> None:
        """Let everything come through."""
        self.lost = 0
        self.refused = 0
        self.posted: list[bytes] = []
        self.refuse(None, lambda *_: False)

    def refuse(
        self,
        refusal: tuple[int, str] | None,
        which: Callable[[str, bytes], bool] = lambda method, _: method == "POST",
    ) -> None:
        """Let some requests not come through.

        Args:
            refusal: the status and the body of the answer to them; None to hang up.
            which: tells it of a method and a body.
        """
        self._refusal, self._refuses = refusal, which

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and its answer back, or not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        message: Message = {"more_body": True}
        body = b""
        while message.get("more_body"):
            message = await receive()
            body += message.get("body", b"")
        if self._refuses(scope["method"], body):
            self.refused += 1
            await (hang_up(send) if self._refusal is None else answer(send, *self._refusal))
            return
        if scope["method"] == "POST":
            self.posted.append(body)
        whole = iter([{"type": "http.request", "body": body}])

        async def receive_again() -> Message:
            return next(whole, None) or await receive()

        async def swallow(_: Message) -> None:
            pass

        if self.lost:
            self.lost -= 1
            await self._app(scope, receive_again, swallow)
            await hang_up(send)
        else:
            await self._app(scope, receive_again, send)


async def answer(send: Send, status: int, body: str) -> None:
    """Answer with a page, as a proxy does, or with a problem."""
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body.encode()})


async def hang_up(send: Send) -> None:
    """End the connection in the middle of an answer."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})


@pytest.fixture(scope="module")
def served(
    tiny_bundle_store: Path, tmp_path_factory: pytest.TempPathFactory, serve_http: Serve
) -> Iterator[tuple[Network, str]]:
    """A service with the tiny model and a history of its own, behind a network; and its URL."""
    history = tmp_path_factory.mktemp("asked") / "history"
    settings = Settings(models=tiny_bundle_store, history=history)
    network = Network(create_app(settings))
    with serve_http(network) as url:
        yield network, url


@pytest.fixture
def network(served: tuple[Network, str]) -> Network:
    """The network before the service, which lets everything come through until it is told otherwise."""
    served[0].reset()
    return served[0]


@pytest.fixture
def url(served: tuple[Network, str], network: Network) -> str:
    del network  # which is as good as none
    return served[1]


@pytest.fixture(params=[Client, AsyncClient], ids=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Calls a method of a client of an address, once by each of the two clients.

    Iterators come as lists, of those without end the `first` few.
    """

    async def ask_async(client: AsyncClient, call: Callable[[Any], Any], first: int | None) -> Any:
        async with client:
            result = call(client)
            if inspect.isawaitable(result):
                return await result
            items = []
            async for item in result:
                items.append(item)
                if len(items) == first:
                    break
            return items

    def ask(
        url: str,
        method: str,
        *args: Any,
        key: str | None = None,
        patience: float = 30,
        ca: Path | None = None,
        first: int | None = None,
        **options: Any,
    ) -> Any:
        client = request.param(url, key, patience=patience, ca=ca)
        call = operator.methodcaller(method, *args, **options)
        if isinstance(client, AsyncClient):
            return asyncio.run(ask_async(client, call, first))
        with client:
            result = call(client)
            return list(itertools.islice(result, first)) if isinstance(result, Iterator) else result

    ask.__name__ = request.param.__name__  # for names that the other client's test does not have
    return ask


class Clock:
    """Stands still unless it is told otherwise."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def make_key(settings: Settings, role: Role, **options: Any) -> str:
    """Make a key of a service; gives its text."""
    database = Database(settings.database_url)
    database.upgrade()
    _, text = KeyStore(database).create(COMMAND_LINE, role, f"the {role}", **options)
    database.close()
    return text


def problem(name: problems.ProblemName) -> tuple[int, str]:
    """Status and body of an answer of the service."""
    status = problems.TYPES[name].status
    fields = {"title": "t", "detail": "d", "instance": "/", "request_id": "r"}
    return status, json.dumps({"type": name, "status": status, **fields})
