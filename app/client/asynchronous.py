"""The same client for asyncio: see app/client/sync.py for what each call does."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, Unpack

import httpx

from ..schemas.history import InspectionSummary
from . import calls
from .calls import Call, Search
from .connection import connection
from .errors import FlowGaugeError, expect, no_answer, of_response
from .events import MEDIA_TYPE, PATH, Event, Listening, Stream
from .retries import Attempts, Reconnecting

P = ParamSpec("P")
T = TypeVar("T")


def _method(build: Callable[P, Call[T]]) -> "Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]":
    """A method that sends what a function of app/client/calls.py makes of the same arguments."""

    @wraps(build)
    def method(self: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        return self.send(build(*args, **kwargs))

    return method


class AsyncClient:
    """A client of a FlowGauge server, for one event loop. Tasks may share one.

    Arguments and errors are those of `Client`.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        ca: str | os.PathLike[str] | None = None,
        timeout: float = 60,
        patience: float = 30,
    ) -> None:
        self._patience = patience
        self._connection = connection(url, key, ca, timeout)
        self._http = httpx.AsyncClient(**self._connection.arguments)

    inspect = _method(calls.inspect)
    inspect_all = _method(calls.inspect_all)
    models = _method(calls.models)
    model = _method(calls.model)
    inspection = _method(calls.inspection)
    part = _method(calls.part)
    overlay = _method(calls.overlay)
    heatmap = _method(calls.heatmap)
    source = _method(calls.source)
    score_map = _method(calls.score_map)
    reviews = _method(calls.reviews)
    review = _method(calls.review)

    async def inspections(
        self, *, page: int = 100, **search: Unpack[Search]
    ) -> AsyncIterator[InspectionSummary]:
        """As `Client.inspections`."""
        cursor = None
        while True:
            found = await self.send(calls.page(search, page, cursor))
            for item in found.inspections:
                yield item
            cursor = found.next_cursor
            if cursor is None:
                return

    async def events(self, **wanted: Unpack[Listening]) -> AsyncIterator[Event]:
        """As `Client.events`."""
        stream = Stream(wanted)
        reconnecting = Reconnecting(self._patience)
        while True:
            try:
                async for event in self._listen(stream):
                    if event is None:
                        reconnecting.let_in()
                    else:
                        reconnecting.heard(event)
                        yield event
                reconnecting.served()
                pause = stream.pause
            except FlowGaugeError as error:
                pause = reconnecting.pause(error)
            await asyncio.sleep(pause)

    async def _listen(self, stream: Stream) -> AsyncIterator[Event | None]:
        """Events as they come; first None, when the server lets us listen."""
        timeout = self._connection.stream_timeout
        try:
            async with self._http.stream("GET", PATH, timeout=timeout, **stream.request()) as response:
                if not response.is_success:
                    await response.aread()
                    raise of_response(response)
                expect(response, MEDIA_TYPE)
                yield None
                async for chunk in response.aiter_bytes():
                    for event in stream.feed(chunk):
                        yield event
        except httpx.RequestError as error:
            raise no_answer(self._connection.url, error) from error

    async def send(self, call: Call[T]) -> T:
        """As `Client.send`."""
        attempts = Attempts(self._patience, repeatable=call.repeatable)
        while True:
            try:
                return await self._once(call)
            except FlowGaugeError as error:
                pause = attempts.pause(error)
            await asyncio.sleep(pause)

    async def _once(self, call: Call[T]) -> T:
        try:
            response = await self._http.request(call.method, call.path, **call.arguments())
        except httpx.RequestError as error:
            raise no_answer(self._connection.url, error) from error
        return call.result(response)

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
