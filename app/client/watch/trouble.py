"""What stands in the way of a picture, and whether that is its own fault."""

from dataclasses import dataclass
from typing import Final

from .folder import Stamp

# Attempts at a picture on which the server fails, or that is refused on the way, before it is set aside; and
# that are not done in time, before it counts as stuck.
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
        delays: attempts that were not done in time, which is no fault of the picture.
    """

    stamp: Stamp
    attempts: int = 0
    again: float = 0.0
    faults: int = 0
    before: int | None = None
    delays: int = 0

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
        return self.fail() and not self._is_refused(inspected)

    def delay(self) -> None:
        """Count an attempt that was not done in time; for these it is never set aside."""
        self.delays += 1

    def is_stuck(self, inspected: int) -> bool:
        """Whether it was tried often enough in vain, for no fault of its own that anybody knows of."""
        return self.delays >= MOST_FAULTS or self._is_refused(inspected)

    def _is_refused(self, inspected: int) -> bool:
        """Whether it was refused often enough, and nothing else has come through that would tell why."""
        return self.faults >= MOST_FAULTS and self.before == inspected
