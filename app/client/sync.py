"""A client that waits for its answers."""

import os
import time
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Concatenate, ParamSpec, Self, TypeVar, Unpack

import httpx

from ..schemas.history import InspectionSummary
from . import calls
from .calls import Call, InspectionFilter
from .connection import http_arguments
from .errors import FlowGaugeError, unreachable
from .events import PATH, Event, EventFilter, EventStream
from .retries import Attempts

P = ParamSpec("P")
T = TypeVar("T")


def _method(build: Callable[P, Call[T]]) -> "Callable[Concatenate[Client, P], T]":
    """A method that sends what a function of app/client/calls.py makes of the same arguments."""

    @wraps(build)
    def method(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.send(build(*args, **kwargs))

    return method


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
        self._timeout, self._patience = timeout, patience
        arguments = http_arguments(url, key, ca, timeout)
        self.url: str = arguments["base_url"]
        self._http = httpx.Client(**arguments)

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

    def inspections(
        self, *, page: int = 100, **search: Unpack[InspectionFilter]
    ) -> Iterator[InspectionSummary]:
        """All inspections of the history that a filter lets through, newest first, read page by page.

        Args:
            page: how many to ask for at a time, at most 500.
            search: the filter: category, decision, made_from (a datetime, or a text as "2026-11-30") and
                others, see `InspectionFilter`.
        """
        cursor = None
        while True:
            found = self.send(calls.page(search, page, cursor))
            yield from found.inspections
            cursor = found.next_cursor
            if cursor is None:
                return

    def events(self, **wanted: Unpack[EventFilter]) -> Iterator[Event]:
        """Hear what happens, without end: inspections, reviews, models, thresholds.

        Where the connection is lost, it is made again, and what was missed comes first. The id of an event
        leads a program that was restarted to all that followed it: `events(after=...)`.

        Args:
            wanted: which events: category, station, decision, after, positions; see `EventFilter`.

        Raises:
            FlowGaugeError: the server does not let us listen, or has been away for longer than our patience.
        """
        stream = EventStream(wanted, self._patience, self._timeout)
        while True:
            try:
                with self._http.stream("GET", PATH, **stream.request()) as response:
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
        """Send a call of app/client/calls.py, again where that helps, and read its answer.

        Raises:
            FlowGaugeError: the last attempt's.
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
        """Close its connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
