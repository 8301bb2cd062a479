"""The line of the model's thread: every category has its turn, whatever the others send."""

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Hashable, Mapping
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Lane(NamedTuple):
    """Where an item waits, first in, first out.

    Attributes:
        category: whose turn it takes.
        group: only items of one group can be computed together.
    """

    category: str
    group: Hashable


class FairQueue(Generic[T]):
    """Lanes that take turns (round-robin), one item a turn. A lane that has been served goes to the end.

    A batch begins with the lane whose turn it is, and takes in the lanes of its group. So an item of a
    category that sends little is in the next batch but for those of other groups, as long as the group has
    no more lanes than a batch has places: however long another lane is.

    Not safe for several threads by itself.
    """

    def __init__(self) -> None:
        self._lanes: OrderedDict[Lane, deque[T]] = OrderedDict()  # in the order of their turns, none empty

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values()))

    def put(self, lane: Lane, item: T) -> None:
        """Add an item at the end of its lane."""
        self._lanes.setdefault(lane, deque()).append(item)

    def remove(self, lane: Lane, item: T) -> bool:
        """Take an item out; whether it was still there."""
        items = self._lanes.get(lane)
        if items is None or item not in items:
            return False
        items.remove(item)
        if not items:
            del self._lanes[lane]
        return True

    def take(self, limit: int, into: list[T]) -> None:
        """Move the next batch, at most `limit` items of one group, into a list; nothing if none waits."""
        group = next((lane.group for lane in self._lanes), None)
        while len(into) < limit:
            lane = next((lane for lane in self._lanes if lane.group == group), None)
            if lane is None:
                return
            into.append(self._lanes[lane].popleft())
            if self._lanes[lane]:
                self._lanes.move_to_end(lane)
            else:
                del self._lanes[lane]

    def clear(self) -> list[T]:
        """Empty the queue; what waited."""
        waiting = [item for items in self._lanes.values() for item in items]
        self._lanes.clear()
        return waiting

    def waiting(self) -> Counter[Hashable]:
        """How many items of each group wait."""
        counts = Counter[Hashable]()
        for lane, items in self._lanes.items():
            counts[lane.group] += len(items)
        return counts

    def forecast(self, lane: Lane, more: Mapping[Lane, int], limit: int) -> Counter[Hashable]:
        """How many items of each group will have been taken when all of a lane have.

        Args:
            lane: which; it need not be there yet.
            more: how many are to come, by lane.
            limit: of a batch.
        """
        waiting = Counter({other: len(items) for other, items in self._lanes.items()}) + Counter(more)
        own = waiting[lane]
        turns = sum(min(n, own) for other, n in waiting.items() if other.group == lane.group)
        # A batch is answered when all of it is done, and the groups take turns as the lanes do.
        most = limit * math.ceil(turns / limit)
        groups = Counter[Hashable]()
        for other, n in waiting.items():
            groups[other.group] += n
        return Counter({group: min(n, most) for group, n in groups.items()})
