"""The same client for asyncio: see app/client/sync.py for what each call does."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Self, TypeVar, Unpack

import httpx

from ..schemas.history import InspectionSummary, KeptInspection, Part, Verdict
from ..schemas.models import Model, ModelSummary
from ..schemas.predict import BatchAnswer, Inspection
from ..schemas.review import Review
from . import calls
from .calls import Call, Image, Search, Wishes
from .connection import connection
from .errors import FlowGaugeError, expect, no_answer, of_response
from .events import MEDIA_TYPE, PATH, Event, Listening, Stream
from .retries import Attempts, Reconnecting

T = TypeVar("T")


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

    async def inspect(self, category: str, image: Image, **wishes: Unpack[Wishes]) -> Inspection:
        """As `Client.inspect`."""
        return await self.send(calls.inspect(category, image, wishes))

    async def inspect_all(
        self, category: str, images: Mapping[str, Image], **wishes: Unpack[Wishes]
    ) -> BatchAnswer:
        """As `Client.inspect_all`."""
        return await self.send(calls.inspect_all(category, images, wishes))

    async def models(self) -> list[ModelSummary]:
        """The categories, with their versions."""
        return (await self.send(calls.models())).models

    async def model(self, category: str) -> Model:
        """What is known of a category's versions."""
        return await self.send(calls.model(category))

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

    async def inspection(self, inspection_id: str) -> KeptInspection:
        """An inspection as it was answered, and what has become of it."""
        return await self.send(calls.inspection(inspection_id))

    async def part(self, part_id: str, *, expect: int | None = None) -> Part:
        """As `Client.part`."""
        return await self.send(calls.part(part_id, expect))

    async def overlay(self, inspection_id: str) -> bytes:
        """A PNG of the uploaded image with its heatmap over it."""
        return await self.send(calls.file(inspection_id, "overlay.png"))

    async def heatmap(self, inspection_id: str) -> bytes:
        """A PNG of the map in colours, at the size of the uploaded image."""
        return await self.send(calls.file(inspection_id, "heatmap.png"))

    async def source(self, inspection_id: str) -> bytes:
        """The uploaded image, byte for byte."""
        return await self.send(calls.file(inspection_id, "source"))

    async def score_map(self, inspection_id: str) -> bytes:
        """The anomaly map as a .npy file, for `numpy.load(io.BytesIO(...))`: float16, (height, width)."""
        return await self.send(calls.file(inspection_id, "map.npy"))

    async def reviews(self, inspection_id: str) -> list[Review]:
        """What people have said of an inspection, the first one first."""
        return (await self.send(calls.reviews(inspection_id))).reviews

    async def review(
        self,
        inspection_id: str,
        verdict: Verdict,
        *,
        expected_revision: int,
        reviewer: str | None = None,
        note: str | None = None,
    ) -> Review:
        """As `Client.review`."""
        return await self.send(calls.review(inspection_id, verdict, expected_revision, reviewer, note))

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
