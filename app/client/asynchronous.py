"""The client for asyncio; app/client/sync.py describes its methods."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, Unpack, cast

import httpx

from ..schemas.history import InspectionSummary
from ..schemas.jobs import ENDED, Job, JobLines
from ..schemas.products import ProductImage
from . import calls, product_calls
from .calls import InspectionQuery
from .connection import http_arguments
from .errors import FlowGaugeError, unreachable
from .events import PATH, EventQuery, EventReader, JobReader, ServerSentEvent, job_events
from .request import Call, PageT
from .retries import Attempts

P = ParamSpec("P")
T = TypeVar("T")


def _method(build: Callable[P, Call[T]]) -> "Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]":
    """A method that sends what a function of calls.py or product_calls.py makes of the same arguments."""

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
        self._timeout, self._patience = timeout, patience
        arguments = http_arguments(url, key, ca, timeout)
        self.url: str = arguments["base_url"]
        self._http = httpx.AsyncClient(**arguments)

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
    start_job = _method(calls.start_job)
    jobs = _method(calls.jobs)
    job = _method(calls.job)
    job_report = _method(calls.job_report)
    cancel_job = _method(calls.cancel_job)
    products = _method(product_calls.products)
    product = _method(product_calls.product)
    create_product = _method(product_calls.create_product)
    change_product = _method(product_calls.change_product)
    delete_product = _method(product_calls.delete_product)
    add_images = _method(product_calls.add_images)
    import_images = _method(product_calls.import_images)
    product_image = _method(product_calls.product_image)
    change_images = _method(product_calls.change_images)
    delete_image = _method(product_calls.delete_image)

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
