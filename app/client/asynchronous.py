"""The client for asyncio; app/client/sync.py describes its methods."""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, Self, TypeVar, Unpack, cast

import httpx

from ..schemas.history import InspectionSummary
from ..schemas.jobs import ENDED, Job, JobLines
from ..schemas.products import ProductImage
from . import calls, product_calls
from .calls import InspectionQuery
from .errors import FlowGaugeError, unreachable
from .events import PATH, EventQuery, EventReader, JobReader, ServerSentEvent, job_events
from .methods import BaseClient
from .request import Call, PageT
from .retries import Attempts

T = TypeVar("T")


class AsyncClient(BaseClient):
    """A client of a FlowGauge server, for one event loop. Tasks may share one.

    Arguments and errors are those of `Client`.
    """

    _open = httpx.AsyncClient
    _http: httpx.AsyncClient

    async def inspections(
        self, *, page: int = 100, **search: Unpack[InspectionQuery]
    ) -> AsyncIterator[InspectionSummary]:
        """Iterate over inspections; see `Client.inspections`."""
        async for found in self._pages(partial(calls.page, search, page)):
            for item in found.inspections:
                yield item

    async def product_images(self, name: str, **search: Any) -> AsyncIterator[ProductImage]:
        """Iterate over a product's images; see `Client.product_images`."""
        async for found in self._pages(partial(product_calls.image_page, name, search)):
            for image in found.images:
                yield image

    async def events(self, **wanted: Unpack[EventQuery]) -> AsyncIterator[ServerSentEvent]:
        """Iterate over live events; see `Client.events`."""
        async for event in self._stream(PATH, EventReader(wanted, self._patience, self._timeout)):
            yield event

    async def follow_job(self, job_id: str) -> AsyncIterator[Job | JobLines]:
        """Iterate over a job's states and lines until it ends; see `Client.follow_job`."""
        async for event in self._stream(job_events(job_id), JobReader({}, self._patience, self._timeout)):
            news = cast("Job | JobLines", event.data)
            yield news
            if isinstance(news, Job) and news.state in ENDED:
                return

    async def _pages(self, build: Callable[[str | None], Call[PageT]]) -> AsyncIterator[PageT]:
        """Iterate over the pages of a list; see `Client._pages`."""
        cursor = None
        while True:
            page = await self.send(build(cursor))
            yield page
            cursor = page.next_cursor
            if cursor is None:
                return

    async def _stream(self, path: str, stream: EventReader) -> AsyncIterator[ServerSentEvent]:
        while True:
            try:
                async with self._http.stream("GET", path, **stream.request()) as response:
                    if not response.is_success:
                        await response.aread()
                    stream.accepted(response)
                    async for chunk in response.aiter_bytes():
                        for event in stream.feed(chunk):
                            yield event
                pause = stream.pause()
            except httpx.RequestError as error:
                pause = stream.pause(unreachable(self.url, error))
            except FlowGaugeError as error:
                pause = stream.pause(error)
            await asyncio.sleep(pause)

    async def send(self, call: Call[T]) -> T:
        """Send a call with retries; see `Client.send`."""
        attempts = Attempts(self._patience, repeatable=call.repeatable)
        while True:
            try:
                return call.result(await self._http.request(call.method, call.path, **call.arguments))
            except httpx.RequestError as error:
                pause = attempts.pause(unreachable(self.url, error))
            except FlowGaugeError as error:
                pause = attempts.pause(error)
            await asyncio.sleep(pause)

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
