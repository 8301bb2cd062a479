"""Stopping without losing anything: what was accepted is finished, and nothing new begins."""

from collections.abc import Callable

from app.errors.problems import Problem


class Draining:
    """Whether the server is stopping. It never turns back.

    Attributes:
        at_end: called in the event loop when the port closes, to end answers that would never end.
    """

    def __init__(self) -> None:
        self.begun = False
        self.at_end: list[Callable[[], None]] = []

    def require_not_begun(self) -> None:
        """Raise the problem draining when the server is stopping."""
        if self.begun:
            raise Problem("draining", "The server is stopping and takes nothing new. Send it again.")
