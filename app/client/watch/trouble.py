"""What stands in the way of a picture, and whether that is its own fault."""

from dataclasses import dataclass
from typing import Final

from .folder import Stamp

# Attempts at a picture on which the server fails, or that is refused on the way, before it is set aside.
MOST_FAULTS: Final = 5


@dataclass
class Trouble:
    """What stood in the way of a picture.

    Attributes:
        stamp: of the picture as it was.
        attempts: that came to nothing, whatever for.
        again: when there is to be another, by the clock.
        faults: attempts that may have failed for the picture's sake.
        before: how many pictures had been inspected when it was first refused on the way to the server.
    """

    stamp: Stamp
    attempts: int = 0
    again: float = 0.0
    faults: int = 0
    before: int | None = None

    def fail(self) -> bool:
        """Count an attempt that may have failed for the picture's sake; whether there were enough."""
        self.faults += 1
        return self.faults >= MOST_FAULTS

    def refuse(self, inspected: int) -> bool:
        """Count an attempt that something between here and the server has refused; whether to set it aside.

        A proxy may as well refuse everything. So others must have come through since the first time.

        Args:
            inspected: how many pictures were, of all that there were.
        """
        if self.before is None:
            self.before = inspected
        return self.fail() and not self.is_stuck(inspected)

    def is_stuck(self, inspected: int) -> bool:
        """Whether it was refused often enough, and nothing else has come through that would tell why."""
        return self.faults >= MOST_FAULTS and self.before == inspected
