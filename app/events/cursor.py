"""Cursors: texts that name a place in the events of one history."""

import re


class Cursors:
    """The cursors of a history.

    A history that was restored from a backup counts on from where the backup was, in another way than the one
    before: so a cursor also says whose it is.

    Args:
        identity: of the history, as in its database.
    """

    def __init__(self, identity: str) -> None:
        self._prefix = identity[:8]

    def at(self, number: int) -> str:
        """The cursor that names the place after an event."""
        return f"{self._prefix}-{number}"

    def read(self, cursor: str) -> int | None:
        """The number that a cursor was made of; None if it is of another history.

        Raises:
            ValueError: it was not made by `at`.
        """
        found = re.fullmatch("([0-9a-f]{8})-([0-9]{1,18})", cursor)
        if found is None:
            raise ValueError(f"no cursor: {cursor[:64]!r}")
        return int(found[2]) if found[1] == self._prefix else None
