"""A queue whose lanes share time fairly, by the measured cost of their items."""

from collections import Counter, deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

T = TypeVar("T")

_WEIGHT: Final = 0.2  # of the latest duration in an average
_MAX_RATIO: Final = 3.0  # a duration counts at most this many times the average, to damp outliers


class MovingAverage:
    """Exponential moving average of durations in seconds; None before the first one."""

    def __init__(self) -> None:
        self.value: float | None = None
        self._count = 0

    def add(self, seconds: float) -> float:
        """Add a duration. Return the amount that counts: at most a few times the average."""
        self._count += 1
        if self.value is None:
            self.value = seconds
            return seconds
        counted = min(seconds, _MAX_RATIO * self.value)
        self.value += max(_WEIGHT, 1 / self._count) * (counted - self.value)
        return counted


@dataclass(eq=False)
class _Lane(Generic[T]):
    """Items of one category, first in, first out."""

    items: deque[T] = field(default_factory=deque)
    start: float = 0.0  # virtual time of its next turn: seconds that its items took
    running: int = 0  # items taken and not settled
    cost: MovingAverage = field(default_factory=MovingAverage)  # seconds of one item


class FairQueue(Generic[T]):
    """Start-time fair queueing (Goyal, Vin and Cheng 1996) of lanes, one for each category.

    The lane whose items took least time is next, so that all busy categories get equal time. Ties go to the
    least recently served lane. An idle lane saves no time: it returns at the virtual time of the lane served
    last. When nothing waits or runs, all virtual times restart at zero.

    A taken item counts as its lane's average until `settle` reports its seconds. Not thread-safe.
    """

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane[T]] = {}  # the least recently served first
        self._now = 0.0

    def __len__(self) -> int:
        return sum(len(lane.items) for lane in self._lanes.values())

    def put(self, name: str, item: T) -> None:
        lane = self._lanes.setdefault(name, _Lane())
        if not lane.items and not lane.running:
            lane.start = max(lane.start, self._now)
        lane.items.append(item)

    def heads(self) -> dict[str, T]:
        """Return the first item of every waiting lane, in the order of their turns."""
        waiting = [name for name, lane in self._lanes.items() if lane.items]
        return {name: self._lanes[name].items[0] for name in sorted(waiting, key=self.start)}

    def start(self, name: str) -> float:
        """Return the virtual time of a lane's next turn."""
        lane = self._lanes.get(name, _Lane())
        start = lane.start + lane.running * self.cost(name)
        return start if lane.items or lane.running else max(start, self._now)

    def cost(self, name: str) -> float:
        """Estimate the seconds of an item of a lane. A lane without measurements counts as the slowest."""
        own = self._lanes.get(name, _Lane()).cost.value
        if own is not None:
            return own
        return max((lane.cost.value or 0.0 for lane in self._lanes.values()), default=0.0)

    def pop(self, name: str) -> T:
        """Take the first item of a lane; `settle` must follow."""
        self._now = max(self._now, self.start(name))
        lane = self._lanes[name] = self._lanes.pop(name)
        lane.running += 1
        return lane.items.popleft()

    def settle(self, name: str, seconds: float | None) -> None:
        """Count the seconds of a taken item; None if it was not processed."""
        lane = self._lanes[name]
        lane.running -= 1
        if seconds is not None:
            lane.start += lane.cost.add(seconds)
        if not any(lane.items or lane.running for lane in self._lanes.values()):
            self._now = 0.0
            for lane in self._lanes.values():
                lane.start = 0.0

    def remove(self, name: str, item: T) -> None:
        """Remove an item if it still waits."""
        with suppress(ValueError):
            self._lanes[name].items.remove(item)

    def work(self, counts: Mapping[str, int] | None = None) -> dict[str, float]:
        """Estimate the seconds of work by lane, including `counts` more items."""
        items = Counter({name: len(lane.items) for name, lane in self._lanes.items()})
        items.update(counts or {})
        return {name: number * self.cost(name) for name, number in items.items()}

    def work_before(self, name: str, items: int, counts: Mapping[str, int] | None = None) -> float:
        """Estimate the seconds until `items` more items of a lane are done, including them.

        Meanwhile, other lanes get as much time as this one, or what their items need, if that is less.
        """
        work = self.work(counts)
        cost = self.cost(name)
        own = work.pop(name, 0.0) + items * cost
        last = self.start(name) + own - cost  # the turn of the last item
        others = (
            min(seconds, max(0.0, last - self.start(other) + self.cost(other)))
            for other, seconds in work.items()
        )
        return own + sum(others)
