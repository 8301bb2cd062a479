"""Cursors: opaque texts that name a place in the events of one history."""

import uuid
from typing import Final

from app.cursor_text import seal, unseal

_BYTES: Final = 12


class NotACursor(ValueError):  # noqa: N818  (what it is, not what failed)
    """A text is no cursor."""


class Cursors:
    """The cursors of a history.

    A history that was restored from a backup counts on from where the backup was, in another way than the one
    before: so a cursor also says whose it is.

    Args:
        identity: of the history, as in its database.
    """

    def __init__(self, identity: str) -> None:
        self._mark = uuid.UUID(identity).bytes[:4]

    def at(self, number: int) -> str:
        """The cursor that names the place after an event."""
        return seal(self._mark + number.to_bytes(8, "big"))

    def read(self, cursor: str) -> int | None:
        """The number that a cursor was made of; None if it is of another history.

        Raises:
            NotACursor: it was not made by `at`.
        """
        place = unseal(cursor)
        if place is None or len(place) != _BYTES:
            raise NotACursor(cursor)
        return int.from_bytes(place[4:], "big") if place[:4] == self._mark else None
