"""Stopping without losing anything: what was accepted is finished, and nothing new begins."""

from collections.abc import Callable

from app.problems import Problem


class Draining:
    """Whether the server is stopping. It never turns back."""

    def __init__(self) -> None:
        self.begun = False
        self._ends: list[Callable[[], None]] = []

    def begin(self) -> None:
        """Stop accepting work. Safe in a signal handler."""
        self.begun = True

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call a function, in the event loop, when the port closes: it ends answers that would never end."""
        self._ends.append(callback)

    def end(self) -> None:
        """Say that the port closes."""
        for callback in self._ends:
            callback()

    def require_not_begun(self) -> None:
        """Raise the problem draining when the server is stopping."""
        if self.begun:
            raise Problem("draining", "The server is stopping and takes nothing new. Send it again.")
