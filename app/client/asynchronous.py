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
        """Inspect an image. However often that is tried, the server inspects and keeps it once.

        Args:
            category: which model.
            image: bytes of a PNG, JPEG, BMP, TIFF or WEBP; or the path of such a file.
            wishes: what else may be said: part_id, station, store and others, see `Wishes`.

        Raises:
            FlowGaugeError: as app/client/errors.py draws them.
            OSError: the file cannot be read.
        """
        return await self.send(calls.inspect(category, image, wishes))

    async def inspect_all(
        self, category: str, images: Mapping[str, Image], **wishes: Unpack[Wishes]
    ) -> BatchAnswer:
        """Inspect several images by their names, such as the views of one part; each may fail alone.

        The idempotency key holds for each with its place among them. Else as `inspect`.
        """
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
        """All inspections of the history that a filter lets through, newest first, read page by page.

        Args:
            page: how many to ask for at a time, at most 500.
            search: the filter: category, decision, made_from (a datetime, or a text as "2026-11-30") and
                others, see `Search`.
        """
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
        """The decision on a part: the worst of its images.

        Args:
            part_id: of the part.
            expect: how many images it has at least; the decision is None as long as fewer are kept and
                none is a REJECT. One that could not be inspected is not kept.
        """
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
        """Say whether the part is good. An answer that was lost is not asked for again: look at `reviews`.

        Raises:
            ConflictError: there are more reviews than `expected_revision`: read them first.
        """
        return await self.send(calls.review(inspection_id, verdict, expected_revision, reviewer, note))

    async def events(self, **wanted: Unpack[Listening]) -> AsyncIterator[Event]:
        """Hear what happens, without end: inspections, reviews, models, thresholds.

        Where the connection is lost, it is made again, and what was missed comes first. The id of an event
        leads a program that was restarted to all that followed it: `events(after=...)`.

        Args:
            wanted: which events: category, station, decision, after, positions; see `Listening`.

        Raises:
            FlowGaugeError: the server does not let us listen, or has been away for longer than our patience.
        """
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
        """Send a call of app/client/calls.py, again where that helps, and read its answer.

        Raises:
            FlowGaugeError: the last attempt's.
        """
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
