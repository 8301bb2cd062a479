"""Live events: the stream of GET /v1/events taken apart (server-sent events; HTML standard, section 9.2)."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypedDict

import httpx
from pydantic import BaseModel, ValidationError

from ..schemas.events import InspectionEvent, ModelEvent, ReviewEvent, ThresholdsEvent
from ..schemas.predict import Decision
from .connection import CONNECT_SECONDS
from .errors import FlowGaugeError, require_media_type, to_error
from .retries import Attempts

PATH: Final = "/v1/events"
_MEDIA_TYPE: Final = "text/event-stream"
# A stream is silent between the server's heartbeats, one in 15 seconds.
_LEAST_TIMEOUT: Final = 30.0
# Between two connections, where the server asks for no more: it may end each at once.
_LEAST_SECONDS: Final = 0.5
# A connection that stood for so long was one: when it is lost, patience begins anew.
_LASTING_SECONDS: Final = 5.0


class Gap(BaseModel):
    """Events may be missing here, as the server keeps them no longer, or a loss of power took them.

    Attributes:
        detail: why.
    """

    detail: str


class Position(BaseModel):
    """Nothing that was asked for has happened up to here; see `EventFilter`."""


EventData = InspectionEvent | ReviewEvent | ModelEvent | ThresholdsEvent | Gap | Position
_KINDS: Final[Mapping[str, type[EventData]]] = {
    "inspection": InspectionEvent,
    "review": ReviewEvent,
    "model": ModelEvent,
    "thresholds": ThresholdsEvent,
    "gap": Gap,
    "position": Position,
}


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Attributes:
        id: leads to all that follows it: `after` of another stream.
        data: what happened; its class tells the kind.
    """

    id: str
    data: EventData


class EventFilter(TypedDict, total=False):
    """Which events are wanted; what is left out does not matter.

    Keys:
        category: of this model.
        station: of inspections there.
        decision: of inspections with one of these decisions.
        after: the id of the last event that is known; "beginning" for all that are kept. By default those
            from now on.
        positions: whether each `Position` is wanted, too: at first and every 15 seconds without another
            event. Its id leads on as any other's does; where what is wanted is rare there is no newer one.
    """

    category: str | None
    station: str | None
    decision: Sequence[Decision] | None
    after: str | None
    positions: bool


class EventStream:
    """A stream over as many connections as it takes.

    Args:
        wanted: which events.
        patience: seconds of attempts at a connection, counted from when the last one was lost.
        timeout: seconds that the network may be silent, if they are more than 30.
        clock: seconds from any beginning.
    """

    def __init__(
        self,
        wanted: EventFilter,
        patience: float,
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._positions = wanted.get("positions", False)
        self._params = {
            name: value for name, value in wanted.items() if value is not None and name != "positions"
        }
        self._patience = patience
        self._timeout = httpx.Timeout(max(timeout, _LEAST_TIMEOUT), connect=min(timeout, CONNECT_SECONDS))
        self._clock = clock
        self._last: str | None = None
        self._retry_seconds = _LEAST_SECONDS
        self._buffer = b""
        self._attempts: Attempts | None = None
        self._since = math.inf  # when the server accepted the connection

    def request(self) -> dict[str, Any]:
        """Make httpx's arguments for the next connection, beside method and URL."""
        self._buffer = b""  # half an event of the connection before
        self._since = math.inf
        headers = {"Accept": _MEDIA_TYPE}
        if self._last is not None:
            headers["Last-Event-ID"] = self._last
        return {"params": self._params, "headers": headers, "timeout": self._timeout}

    def accepted(self, response: httpx.Response) -> None:
        """Take the head of the server's answer; of one without success also the body, which has been read.

        Raises:
            FlowGaugeError: it is no stream of events.
        """
        if not response.is_success:
            raise to_error(response)
        require_media_type(response, _MEDIA_TYPE)
        self._since = self._clock()

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Take the next bytes, and give the events that are complete with them."""
        *frames, self._buffer = (self._buffer + chunk).replace(b"\r\n", b"\n").split(b"\n\n")
        for frame in frames:
            event = self._event(frame.decode())
            if event is not None:
                yield event

    def pause(self, error: FlowGaugeError | None = None) -> float:
        """Seconds to wait before the next connection.

        Args:
            error: how the last one ended; None where the server ended it in order.

        Raises:
            FlowGaugeError: `error`, where there is to be no other.
        """
        if error is None:
            self._attempts = None
            return self._retry_seconds
        # A server that accepts connections and breaks them at once is as good as away.
        if self._attempts is None or self._clock() - self._since > _LASTING_SECONDS:
            self._attempts = Attempts(self._patience, repeatable=True, clock=self._clock)
        return self._attempts.pause(error)

    def _event(self, frame: str) -> Event | None:
        """Parse an event; None for a comment, a position that is not wanted, or a kind of a later server."""
        fields: dict[str, str] = {}
        for line in frame.split("\n"):
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        if fields.get("retry", "").isdecimal():
            self._retry_seconds = max(_LEAST_SECONDS, int(fields["retry"]) / 1000)
        kind = _KINDS.get(fields.get("event", ""))
        self._last = fields.get("id", self._last)
        if "id" not in fields or kind is None or (kind is Position and not self._positions):
            return None
        try:
            event = Event(fields["id"], kind.model_validate_json(fields.get("data", "")))
        except ValidationError:
            return None
        if kind is not Position:  # with which each connection begins
            self._attempts = None
        return event
