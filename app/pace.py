"""How long batches of one group take, and how large they are to be where others wait for them."""

import math
from collections import deque
from statistics import median_low
from typing import Final

# The pace is the median of so many batches: a slow one, such as the first after a long pause, is outvoted
# where an average would have requests refused for it.
_REMEMBERED: Final = 9
# A batch that hangs is no debt of minutes, and says no more than that of the next ones.
MUCH_SLOWER: Final = 3.0
# Those of other groups wait for a batch. It is to take no longer; but where one image alone does, since a
# batch takes its time however small it is, others come along for little more.
_OTHERS_WAIT_SECONDS: Final = 0.25
_ALONE: Final = 1.5
# After a batch that was too large, so many that are not are seen before one more place is tried again.
_PATIENCE: Final = 16


class Pace:
    """What was measured of the batches of one group: same backbone, same input size.

    Args:
        most: places of a batch.

    Attributes:
        places: that a batch is to have where other groups wait; one, before anything was measured.
        ended: time.monotonic() when the last one did.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._paces: deque[float] = deque(maxlen=_REMEMBERED)
        self._shortest = math.inf  # seconds of a batch
        self._patience = 0
        self.places = 1
        self.ended = -math.inf

    @property
    def seconds(self) -> float:
        """Per place (an image is one, or several)."""
        # The lower median: of two batches the first one of the process was the slow one.
        return median_low(self._paces)

    def add(self, places: int, seconds: float, ended: float) -> float:
        """Learn from a batch; gives the seconds that a place of it counts."""
        self.ended = ended
        self._paces.append(seconds / places)
        self._shortest = min(self._shortest, seconds)
        longest = max(_OTHERS_WAIT_SECONDS, _ALONE * self._shortest)
        fit = int(places * longest / seconds) if seconds > 0 else self._most
        if seconds > longest:
            wanted, self._patience = min(self.places, fit), _PATIENCE
        elif self._patience:
            wanted, self._patience = max(self.places, fit), self._patience - 1
        else:
            wanted = max(self.places, fit, places + 1)
        self.places = min(max(1, wanted), self._most)
        return min(seconds / places, MUCH_SLOWER * self.seconds)
