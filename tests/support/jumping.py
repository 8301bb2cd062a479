"""An event loop whose time is not the machine's: where all wait for the clock, it jumps to what comes next.

So what asyncio times is tested to the letter, however slow the machine is. For work within the loop alone:
what threads and sockets take is no time here.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Jumping(asyncio.SelectorEventLoop):
    """Event loop with its own clock, which starts at 0."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        if not self._ready:  # type: ignore[attr-defined]
            awaited = [one.when() for one in self._scheduled if not one.cancelled()]  # type: ignore[attr-defined]
            self.now = max(self.now, min(awaited, default=self.now))
        super()._run_once()  # type: ignore[misc]


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine like `asyncio.run`, on such a loop."""
    with asyncio.Runner(loop_factory=Jumping) as runner:
        return runner.run(work)
