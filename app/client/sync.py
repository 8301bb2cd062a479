"""The blocking client."""

import time
from collections.abc import Callable, Iterator
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


class Client(BaseClient):
    """A client of a FlowGauge server. Threads may share one.

    >>> with Client("http://127.0.0.1:8000", key="fg_...") as client:  # doctest: +SKIP
    ...     print(client.inspect("bottle", "part.png", part_id="P-000123").decision)

    Args:
        url: of the server.
        key: of the server; None if it has no keys.
        ca: PEM file of the authority that signed the server's certificate; None for the system's.
        timeout: seconds that the network may be silent in an attempt; at least 30 for events.
        patience: seconds in which a failed call is sent again if that can help; 0 for never.

    Attributes:
        url: of the server, without a slash at its end.

    Raises:
        AddressError: url, key or ca is invalid.
    """

    _open = httpx.Client
    _http: httpx.Client

    def inspections(
        self, *, page: int = 100, **search: Unpack[InspectionQuery]
    ) -> Iterator[InspectionSummary]:
        """Iterate over the inspections that a filter selects, newest first.

        Args:
            page: inspections per request, at most 500.
            search: the filter: category, decision, made_from (a datetime or a text such as "2026-11-30") and
                others, see `InspectionQuery`.
        """
        for found in self._pages(partial(calls.page, search, page)):
            yield from found.inspections

    def product_images(self, name: str, **search: Any) -> Iterator[ProductImage]:
        """Iterate over a product's images, the latest first.

        Args:
            search: the filter: label, kind, excluded, finding (a kind of the data check, or "any").
        """
        for found in self._pages(partial(product_calls.image_page, name, search)):
            yield from found.images

    def events(self, **wanted: Unpack[EventQuery]) -> Iterator[ServerSentEvent]:
        """Iterate over live events without end: inspections, reviews, models, thresholds.

        A lost connection is made again, and missed events come first. A program that restarts continues after
        the last event it has: `events(after=event.id)`.

        Args:
            wanted: the filter: category, station, decision, after, positions; see `EventQuery`.

        Raises:
            FlowGaugeError: the server refuses, or has been away for longer than `patience`.
        """
        return self._stream(PATH, EventReader(wanted, self._patience, self._timeout))

    def follow_job(self, job_id: str) -> Iterator[Job | JobLines]:
        """Iterate over a job's states and the lines of its log, until it ends.

        A lost connection is made again; no line comes twice.

        Raises:
            FlowGaugeError: the server refuses, or has been away for longer than `patience`.
        """
        for event in self._stream(job_events(job_id), JobReader({}, self._patience, self._timeout)):
            news = cast("Job | JobLines", event.data)
            yield news
            if isinstance(news, Job) and news.state in ENDED:
                return

    def _pages(self, build: Callable[[str | None], Call[PageT]]) -> Iterator[PageT]:
        """Iterate over the pages of a list; `build` makes the call of the page with a cursor."""
        cursor = None
        while True:
            page = self.send(build(cursor))
            yield page
            cursor = page.next_cursor
            if cursor is None:
                return

    def _stream(self, path: str, stream: EventReader) -> Iterator[ServerSentEvent]:
        while True:
            try:
                with self._http.stream("GET", path, **stream.request()) as response:
                    if not response.is_success:
                        response.read()
                    stream.accepted(response)
                    for chunk in response.iter_bytes():
                        yield from stream.feed(chunk)
                pause = stream.pause()
            except httpx.RequestError as error:
                pause = stream.pause(unreachable(self.url, error))
            except FlowGaugeError as error:
                pause = stream.pause(error)
            time.sleep(pause)

    def send(self, call: Call[T]) -> T:
        """Send a call, with retries, and read its answer.

        Raises:
            FlowGaugeError: of the last attempt.
        """
        attempts = Attempts(self._patience, repeatable=call.repeatable)
        while True:
            try:
                return call.result(self._http.request(call.method, call.path, **call.arguments))
            except httpx.RequestError as error:
                pause = attempts.pause(unreachable(self.url, error))
            except FlowGaugeError as error:
                pause = attempts.pause(error)
            time.sleep(pause)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
