"""Graceful stop: accepted requests finish, new ones are refused."""

from collections.abc import Callable

from app.errors.problems import Problem


class Draining:
    """The state of a graceful stop, which cannot be undone.

    Attributes:
        begun: True once the server stops.
        at_end: callbacks in the event loop when the port closes, to end endless responses.
    """

    def __init__(self) -> None:
        self.begun = False
        self.at_end: list[Callable[[], None]] = []

    def require_not_begun(self) -> None:
        """Raise the problem draining if the server stops."""
        if self.begun:
            raise Problem("draining", "The server is stopping and refuses new requests. Send it again.")
