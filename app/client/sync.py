"""A client that waits for its answers."""

import os
import time
from collections.abc import Callable, Iterator
from functools import wraps
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar, Unpack

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
        self._patience = patience
        self._connection = connection(url, key, ca, timeout)
        self.url = self._connection.url
        self._http = httpx.Client(**self._connection.arguments)

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
