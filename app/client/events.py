"""Parser of GET /v1/events: server-sent events (HTML standard, section 9.2)."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypedDict

import httpx
from pydantic import BaseModel, ValidationError

from ..schemas.events import InspectionEvent, ModelEvent, ReviewEvent, ThresholdsEvent
from ..schemas.jobs import Job, JobLines
from ..schemas.predict import Decision
from .connection import CONNECT_SECONDS
from .errors import FlowGaugeError, require_media_type, to_error
from .request import segment
from .retries import Attempts

PATH: Final = "/v1/events"
_MEDIA_TYPE: Final = "text/event-stream"
# A stream is silent between the server's heartbeats, one in 15 seconds.
_LEAST_TIMEOUT: Final = 30.0
# Between two connections, if the server asks for no more: it may end each at once.
_LEAST_SECONDS: Final = 0.5
# After a connection of this length, `patience` counts anew.
_LASTING_SECONDS: Final = 5.0


class GapEvent(BaseModel):
    """Events may be missing here: they are no longer kept, or a power loss took them.

    Attributes:
        detail: the reason.
    """

    detail: str


class PositionEvent(BaseModel):
    """No selected event happened up to here; see `EventQuery`."""


EventData = InspectionEvent | ReviewEvent | ModelEvent | ThresholdsEvent | GapEvent | PositionEvent
_KINDS: Final[Mapping[str, type[EventData]]] = {
    "inspection": InspectionEvent,
    "review": ReviewEvent,
    "model": ModelEvent,
    "thresholds": ThresholdsEvent,
    "gap": GapEvent,
    "position": PositionEvent,
}


@dataclass(frozen=True)
class ServerSentEvent:
    """An event.

    Attributes:
        id: pass it as `after` to receive all that follows.
        data: its class tells the kind of event.
    """

    id: str
    data: EventData


class EventQuery(TypedDict, total=False):
    """Filter of events; a missing key selects all.

    Keys:
        category: of the model.
        station: of the inspections.
        decision: one or more decisions of the inspections.
        after: id of the last known event; "beginning" for all that are kept. By default, events from now on.
        positions: also yield each `PositionEvent`: at first, and after 15 seconds without another event. If
            the selected events are rare, its id is the newest to resume from.
    """

    category: str | None
    station: str | None
    decision: Sequence[Decision] | None
    after: str | None
    positions: bool


class EventReader:
    """Reader of events across reconnections.

    Args:
        patience: seconds of attempts, counted from the loss of a connection.
        timeout: seconds that the network may be silent; at least 30.

    Attributes:
        kinds: the class of each kind of event; others are left out.
    """

    kinds: Mapping[str, Any] = _KINDS

    def __init__(
        self, query: EventQuery, patience: float, timeout: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._positions = query.get("positions", False)
        self._params = {
            name: value for name, value in query.items() if value is not None and name != "positions"
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
        """Return httpx's arguments for the next connection, besides method and URL."""
        self._buffer = b""  # half an event of the last connection
        self._since = math.inf
        headers = {"Accept": _MEDIA_TYPE}
        if self._last is not None:
            headers["Last-Event-ID"] = self._last
        return {"params": self._params, "headers": headers, "timeout": self._timeout}

    def accepted(self, response: httpx.Response) -> None:
        """Check the head of the server's answer; the body of an error must have been read.

        Raises:
            FlowGaugeError: the answer is no stream of events.
        """
        if not response.is_success:
            raise to_error(response)
        require_media_type(response, _MEDIA_TYPE)
        self._since = self._clock()

    def feed(self, chunk: bytes) -> Iterator[ServerSentEvent]:
        """Add received bytes, and yield the events that they complete."""
        *frames, self._buffer = (self._buffer + chunk).replace(b"\r\n", b"\n").split(b"\n\n")
        for frame in frames:
            event = self._event(frame.decode())
            if event is not None:
                yield event

    def pause(self, error: FlowGaugeError | None = None) -> float:
        """Return the seconds to wait before the next connection.

        Raises:
            FlowGaugeError: `error`, which ended the last one, if there is no further attempt.
        """
        if error is None:
            self._attempts = None
            return self._retry_seconds
        # A server that accepts connections and breaks them at once counts as away.
        if self._attempts is None or self._clock() - self._since > _LASTING_SECONDS:
            self._attempts = Attempts(self._patience, repeatable=True, clock=self._clock)
        return self._attempts.pause(error)

    def _event(self, frame: str) -> ServerSentEvent | None:
        """Parse an event; None for a comment, an unwanted position or an unknown kind."""
        fields: dict[str, str] = {}
        for line in frame.split("\n"):
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        if fields.get("retry", "").isdecimal():
            self._retry_seconds = max(_LEAST_SECONDS, int(fields["retry"]) / 1000)
        kind = self.kinds.get(fields.get("event", ""))
        self._last = fields.get("id", self._last)
        if "id" not in fields or kind is None or (kind is PositionEvent and not self._positions):
            return None
        try:
            event = ServerSentEvent(fields["id"], kind.model_validate_json(fields.get("data", "")))
        except ValidationError:
            return None
        if kind is not PositionEvent:  # with which each connection begins
            self._attempts = None
        return event


def job_events(job_id: str) -> str:
    """Return the path of a job's events."""
    return f"/v1/jobs/{segment(job_id)}/events"


class JobReader(EventReader):
    """Reader of a job's events across reconnections."""

    kinds: Mapping[str, Any] = {"job": Job, "lines": JobLines}
