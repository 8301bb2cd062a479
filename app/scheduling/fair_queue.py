"""A queue whose lanes share time fairly, by the measured cost of their items."""

from collections import Counter, deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

T = TypeVar("T")

_WEIGHT: Final = 0.2  # of the latest duration in an average
_MOST_TIMES: Final = 3.0  # the average that one duration counts: an outlier moves it little


class MovingAverage:
    """Exponential moving average of durations in seconds; None before the first one."""

    def __init__(self) -> None:
        self.value: float | None = None
        self._count = 0

    def add(self, seconds: float) -> float:
        """Add a duration. Returns what it counts: no more than a few times the average."""
        self._count += 1
        if self.value is None:
            self.value = seconds
            return seconds
        counted = min(seconds, _MOST_TIMES * self.value)
        self.value += max(_WEIGHT, 1 / self._count) * (counted - self.value)
        return counted


@dataclass(eq=False)
class _Lane(Generic[T]):
    """Items of one category, first in, first out."""

    items: deque[T] = field(default_factory=deque)
    start: float = 0.0  # virtual time of its next turn: seconds that its items took
    running: int = 0  # items that were taken and are not settled
    cost: MovingAverage = field(default_factory=MovingAverage)  # seconds of one item


class FairQueue(Generic[T]):
    """Start-time fair queueing (Goyal, Vin and Cheng 1996) of lanes, one for each category.

    The lane whose items have taken least time is next, so that a category with slow or many items has as much
    time as one with few. Ties go to the least recently served lane. An idle lane saves up nothing: it comes
    back at the virtual time of the lane served last. When nothing waits or runs, all debts are forgotten.

    An item that was taken counts as the average of its lane until `settle` tells the seconds that it took.
    Not thread-safe.
    """

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane[T]] = {}  # the least recently served first
        self._now = 0.0

    def __len__(self) -> int:
        return sum(len(lane.items) for lane in self._lanes.values())

    def put(self, name: str, item: T) -> None:
        """Add an item at the end of a lane."""
        lane = self._lanes.setdefault(name, _Lane())
        if not lane.items and not lane.running:
            lane.start = max(lane.start, self._now)
        lane.items.append(item)

    def heads(self) -> dict[str, T]:
        """The first item of every lane that has one; the lane whose turn it is comes first."""
        waiting = [name for name, lane in self._lanes.items() if lane.items]
        return {name: self._lanes[name].items[0] for name in sorted(waiting, key=self.start)}

    def start(self, name: str) -> float:
        """The virtual time of a lane's next turn."""
        lane = self._lanes.get(name, _Lane())
        start = lane.start + lane.running * self.cost(name)
        return start if lane.items or lane.running else max(start, self._now)

    def cost(self, name: str) -> float:
        """Seconds that an item of a lane takes; of a lane never measured, those of the slowest one."""
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
        """Count the seconds that a taken item took; None if it was not worked on."""
        lane = self._lanes[name]
        lane.running -= 1
        if seconds is not None:
            lane.start += lane.cost.add(seconds)
        if not any(one.items or one.running for one in self._lanes.values()):
            self._now = 0.0
            for one in self._lanes.values():
                one.start = 0.0

    def remove(self, name: str, item: T) -> None:
        """Drop an item, if it still waits."""
        with suppress(ValueError):
            self._lanes[name].items.remove(item)

    def work(self, counts: Mapping[str, int] | None = None) -> dict[str, float]:
        """Seconds of work by lane, with so many more items to come."""
        items = Counter({name: len(lane.items) for name, lane in self._lanes.items()})
        items.update(counts or {})
        return {name: number * self.cost(name) for name, number in items.items()}

    def work_before(self, name: str, items: int, counts: Mapping[str, int] | None = None) -> float:
        """Seconds of work until so many more items of a lane are done, these included.

        Other lanes get as much time as this one meanwhile, or what their items need, if that is less.
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
