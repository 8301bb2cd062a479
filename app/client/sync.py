"""A client that waits for its answers."""

import os
import time
from collections.abc import Iterator, Mapping
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


class Client:
    """A client of a FlowGauge server. Threads may share one.

    >>> with Client("http://127.0.0.1:8000", key="fg_...") as client:  # doctest: +SKIP
    ...     print(client.inspect("bottle", "part.png", part_id="P-000123").decision)

    Args:
        url: of the server.
        key: of the server, or None where it has none.
        ca: PEM file of the authority that signed the server's certificate; None for those of the system.
        timeout: seconds that the network may be silent in an attempt; for events 30 at least.
        patience: seconds in which a call that failed is sent again, where that can help; 0 for once.

    Attributes:
        url: of the server, without a slash at its end.

    Raises:
        AddressError: url, key or ca cannot be right.
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
        self.url = self._connection.url
        self._http = httpx.Client(**self._connection.arguments)

    def inspect(self, category: str, image: Image, **wishes: Unpack[Wishes]) -> Inspection:
        """Inspect an image. However often that is tried, the server inspects and keeps it once.

        Args:
            category: which model.
            image: bytes of a PNG, JPEG, BMP, TIFF or WEBP; or the path of such a file.
            wishes: what else may be said: part_id, station, store and others, see `Wishes`.

        Raises:
            FlowGaugeError: as app/client/errors.py draws them.
            OSError: the file cannot be read.
        """
        return self.send(calls.inspect(category, image, wishes))

    def inspect_all(
        self, category: str, images: Mapping[str, Image], **wishes: Unpack[Wishes]
    ) -> BatchAnswer:
        """Inspect several images by their names, such as the views of one part; each may fail alone.

        The idempotency key holds for each with its place among them. Else as `inspect`.
        """
        return self.send(calls.inspect_all(category, images, wishes))

    def models(self) -> list[ModelSummary]:
        """The categories, with their versions."""
        return self.send(calls.models()).models

    def model(self, category: str) -> Model:
        """What is known of a category's versions."""
        return self.send(calls.model(category))

    def inspections(self, *, page: int = 100, **search: Unpack[Search]) -> Iterator[InspectionSummary]:
        """All inspections of the history that a filter lets through, newest first, read page by page.

        Args:
            page: how many to ask for at a time, at most 500.
            search: the filter: category, decision, made_from (a datetime, or a text as "2026-11-30") and
                others, see `Search`.
        """
        cursor = None
        while True:
            found = self.send(calls.page(search, page, cursor))
            yield from found.inspections
            cursor = found.next_cursor
            if cursor is None:
                return

    def inspection(self, inspection_id: str) -> KeptInspection:
        """An inspection as it was answered, and what has become of it."""
        return self.send(calls.inspection(inspection_id))

    def part(self, part_id: str, *, expect: int | None = None) -> Part:
        """The decision on a part: the worst of its images.

        Args:
            part_id: of the part.
            expect: how many images it has at least; the decision is None as long as fewer are kept and
                none is a REJECT. One that could not be inspected is not kept.
        """
        return self.send(calls.part(part_id, expect))

    def overlay(self, inspection_id: str) -> bytes:
        """A PNG of the uploaded image with its heatmap over it."""
        return self.send(calls.file(inspection_id, "overlay.png"))

    def heatmap(self, inspection_id: str) -> bytes:
        """A PNG of the map in colours, at the size of the uploaded image."""
        return self.send(calls.file(inspection_id, "heatmap.png"))

    def source(self, inspection_id: str) -> bytes:
        """The uploaded image, byte for byte."""
        return self.send(calls.file(inspection_id, "source"))

    def score_map(self, inspection_id: str) -> bytes:
        """The anomaly map as a .npy file, for `numpy.load(io.BytesIO(...))`: float16, (height, width)."""
        return self.send(calls.file(inspection_id, "map.npy"))

    def reviews(self, inspection_id: str) -> list[Review]:
        """What people have said of an inspection, the first one first."""
        return self.send(calls.reviews(inspection_id)).reviews

    def review(
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
        return self.send(calls.review(inspection_id, verdict, expected_revision, reviewer, note))

    def events(self, **wanted: Unpack[Listening]) -> Iterator[Event]:
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
                for event in self._listen(stream):
                    if event is None:
                        reconnecting.let_in()
                    else:
                        reconnecting.heard(event)
                        yield event
                reconnecting.served()
                pause = stream.pause
            except FlowGaugeError as error:
                pause = reconnecting.pause(error)
            time.sleep(pause)

    def _listen(self, stream: Stream) -> Iterator[Event | None]:
        """Events as they come; first None, when the server lets us listen."""
        timeout = self._connection.stream_timeout
        try:
            with self._http.stream("GET", PATH, timeout=timeout, **stream.request()) as response:
                if not response.is_success:
                    response.read()
                    raise of_response(response)
                expect(response, MEDIA_TYPE)
                yield None
                for chunk in response.iter_bytes():
                    yield from stream.feed(chunk)
        except httpx.RequestError as error:
            raise no_answer(self._connection.url, error) from error

    def send(self, call: Call[T]) -> T:
        """Send a call of app/client/calls.py, again where that helps, and read its answer.

        Raises:
            FlowGaugeError: the last attempt's.
        """
        attempts = Attempts(self._patience, repeatable=call.repeatable)
        while True:
            try:
                return self._once(call)
            except FlowGaugeError as error:
                pause = attempts.pause(error)
            time.sleep(pause)

    def _once(self, call: Call[T]) -> T:
        try:
            response = self._http.request(call.method, call.path, **call.arguments())
        except httpx.RequestError as error:
            raise no_answer(self._connection.url, error) from error
        return call.result(response)

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
