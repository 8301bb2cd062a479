"""Cursors: opaque texts that name a place in the events of one history."""

import base64
import binascii
import uuid
import zlib
from typing import Final

_BYTES: Final = 16


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
        place = self._mark + number.to_bytes(8, "big")
        return base64.urlsafe_b64encode(place + zlib.crc32(place).to_bytes(4, "big")).decode().rstrip("=")

    def read(self, cursor: str) -> int | None:
        """The number that a cursor was made of; None if it is of another history.

        Raises:
            NotACursor: it was not made by `at`.
        """
        try:
            data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise NotACursor(cursor) from error
        mark, number = data[:4], int.from_bytes(data[4:12], "big")
        if len(data) != _BYTES or zlib.crc32(data[:12]) != int.from_bytes(data[12:], "big"):
            raise NotACursor(cursor)
        return number if mark == self._mark else None
