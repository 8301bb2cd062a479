"""Cursors: texts that name a position in the events of a history."""

import re


class Cursors:
    """Formats and parses the cursors of a history.

    A cursor also names its history: after a restore from a backup, the same numbers stand for other events.
    """

    def __init__(self, identity: str) -> None:
        self._prefix = identity[:8]

    def at(self, number: int) -> str:
        """Return the cursor of the position after an event."""
        return f"{self._prefix}-{number}"

    def read(self, cursor: str) -> int | None:
        """Return the number of a cursor; None if it belongs to another history.

        Raises:
            ValueError: it is no cursor.
        """
        match = re.fullmatch("([0-9a-f]{8})-([0-9]{1,18})", cursor)
        if match is None:
            raise ValueError(f"no cursor: {cursor[:64]!r}")
        return int(match[2]) if match[1] == self._prefix else None
