"""What a sink has given up, in a file for people: one JSON object a line."""

import json
import logging
import threading
from pathlib import Path
from typing import Final

from app.database import clock
from app.feed.log import Event

logger = logging.getLogger("flowgauge.sinks")

MAX_BYTES: Final = 16 * 1024 * 1024


class DeadLetters:
    """A file that grows to a limit, and the one before it: the newest letters are there, the oldest go.

    Threads may share one, as stations of a sink do.

    Args:
        path: of the file; the one before it ends in .1.
        max_bytes: of each.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._lock = threading.Lock()

    def add(self, event: Event, reason: str) -> None:
        """Write an event down; where even that fails, the log has it.

        Args:
            event: what could not be delivered.
            reason: why.
        """
        letter = {"given_up": clock.iso(clock.now_ms()), "reason": reason, "data": json.loads(event.data)}
        line = json.dumps(letter) + "\n"
        try:
            with self._lock:
                self._append(line)
        except OSError:
            logger.exception("a dead letter cannot be written to %s: %s", self.path, line)

    def _append(self, line: str) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and self.path.stat().st_size + len(line) > self._max_bytes:
            self.path.replace(self.path.with_name(f"{self.path.name}.1"))
        with self.path.open("a") as file:
            file.write(line)
