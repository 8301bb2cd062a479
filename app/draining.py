"""Stopping without losing anything: what was accepted is finished, and nothing new begins."""

from app.problems import Problem


class Draining:
    """Whether the server is stopping. It never turns back."""

    def __init__(self) -> None:
        self.begun = False

    def begin(self) -> None:
        """Stop accepting work. Safe in a signal handler."""
        self.begun = True

    def expect_not_begun(self) -> None:
        """Raise the problem draining when the server is stopping."""
        if self.begun:
            raise Problem("draining", "The server is stopping and takes nothing new. Send it again.")
