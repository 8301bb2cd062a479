"""The interface of a sink, and the error of a failed attempt to deliver."""

from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass

from app.events.log import EventSelector, NumberedEvent


@dataclass(eq=False)
class DeliveryError(Exception):
    """A failed attempt to deliver an event.

    Attributes:
        reason: for people, without secrets.
        reached: whether the receiver may have the event all the same.
        counts: whether the attempt counts towards `Sink.attempts`. An attempt that cannot reach the receiver
            does not: waiting is better than giving up.
        final: whether to give the event up at once.
        wait: seconds that the receiver asks to wait before the next attempt; None for the usual delay.
    """

    reason: str
    _: KW_ONLY
    reached: bool = False
    counts: bool = False
    final: bool = False
    wait: float | None = None


class Sink(ABC):
    """A receiver of events.

    Attributes:
        name: unique; identifies its position, its failed deliveries and its metrics.
        description: for people.
        events: selects the events to deliver.
        attempts: counted attempts after which an event is given up.
    """

    name: str
    description: str
    events: EventSelector
    attempts: int

    async def open(self) -> None:  # noqa: B027  (optional)
        """Start; the receiver may be out of reach."""

    async def close(self) -> None:  # noqa: B027  (optional)
        """Release connections."""

    @property
    def is_ready(self) -> bool:
        """True if an attempt can succeed."""
        return True

    async def wait_ready(self) -> None:  # noqa: B027  (optional)
        """Wait until `is_ready`."""

    @abstractmethod
    async def deliver(self, event: NumberedEvent, redelivered: bool) -> None:
        """Deliver an event. Return once the receiver has it.

        Args:
            event: one that `events` selects.
            redelivered: whether it may have been delivered before.

        Raises:
            DeliveryError: this attempt failed.
        """
