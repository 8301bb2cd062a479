"""Live events: the stream of GET /v1/events taken apart (server-sent events; HTML standard, section 9.2)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypedDict

from pydantic import BaseModel, ValidationError

from ..schemas.events import InspectionEvent, ModelEvent, ReviewEvent, ThresholdsEvent
from ..schemas.predict import Decision

PATH: Final = "/v1/events"
MEDIA_TYPE: Final = "text/event-stream"
# Between two connections, where the server asks for no more: it may end each at once.
_LEAST_SECONDS: Final = 0.5


class Gap(BaseModel):
    """Events may be missing here, as the server keeps them no longer, or a loss of power took them.

    Attributes:
        detail: why.
    """

    detail: str


class Position(BaseModel):
    """Nothing that was asked for has happened up to here; see `Listening`."""


Happening = InspectionEvent | ReviewEvent | ModelEvent | ThresholdsEvent | Gap | Position
_KINDS: Final[Mapping[str, type[Happening]]] = {
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
    data: Happening


class Listening(TypedDict, total=False):
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


class Stream:
    """A stream over as many connections as it takes.

    Args:
        wanted: which events.
    """

    def __init__(self, wanted: Listening) -> None:
        self._positions = wanted.get("positions", False)
        self._wanted = {
            name: value for name, value in wanted.items() if value is not None and name != "positions"
        }
        self._last: str | None = None
        self._retry_ms = 0
        self._buffer = b""

    @property
    def pause(self) -> float:
        """Seconds to stay away before coming back: what the server asks for, and a least time."""
        return max(_LEAST_SECONDS, self._retry_ms / 1000)

    def request(self) -> dict[str, Any]:
        """What httpx makes the next connection's request of, beside method and URL."""
        self._buffer = b""  # half an event of the connection before
        headers = {"Accept": MEDIA_TYPE}
        if self._last is not None:
            headers["Last-Event-ID"] = self._last
        return {"params": self._wanted, "headers": headers}

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Take the next bytes, and give the events that are complete with them."""
        *frames, self._buffer = (self._buffer + chunk).replace(b"\r\n", b"\n").split(b"\n\n")
        for frame in frames:
            event = self._event(frame.decode())
            if event is not None:
                yield event

    def _event(self, frame: str) -> Event | None:
        """An event, or None: a comment, a position that is not wanted, or a kind of a later server."""
        fields: dict[str, str] = {}
        for line in frame.split("\n"):
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        if fields.get("retry", "").isdecimal():
            self._retry_ms = int(fields["retry"])
        if "id" not in fields:
            return None
        kind = _KINDS.get(fields.get("event", ""))
        self._last = fields["id"]
        if kind is None or (kind is Position and not self._positions):
            return None
        try:
            return Event(fields["id"], kind.model_validate_json(fields.get("data", "")))
        except ValidationError:
            return None
