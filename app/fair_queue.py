"""A line for work of several categories: each has its turn, whatever the others send."""

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable, Mapping
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

    An item may take several places of a batch, and one that takes more than a batch has gets a batch alone.

    A batch begins with the lane whose turn it is, and takes in the lanes of its group. So an item of a
    category that sends little is in the next batch but for those of other groups, as long as the group has
    no more lanes than a batch has places: however long another lane is.

    Not safe for several threads by itself.

    Args:
        places: how many places of a batch an item takes; by default one.
    """

    def __init__(self, places: Callable[[T], int] = lambda _: 1) -> None:
        self._places = places
        self._latest: dict[Lane, int] = {}  # places of the item that was last put into a lane
        self._lanes: OrderedDict[Lane, deque[T]] = OrderedDict()  # in the order of their turns, none empty

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values()))

    def put(self, lane: Lane, item: T) -> None:
        """Add an item at the end of its lane."""
        self._lanes.setdefault(lane, deque()).append(item)
        self._latest[lane] = self._places(item)

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
        """Move the next batch into a list: items of one group, in at most `limit` places; or nothing.

        Into an empty list one item is taken however many places it takes.
        """
        group = next((lane.group for lane in self._lanes), None)
        taken = sum(map(self._places, into))
        while taken < limit:
            lane = next((lane for lane in self._lanes if lane.group == group), None)
            if lane is None:
                return
            taken += self._places(self._lanes[lane][0])
            if taken > limit and into:  # its lane keeps its turn
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
        """How many places the items of each group that wait take."""
        counts = Counter[Hashable]()
        for lane, items in self._lanes.items():
            counts[lane.group] += sum(map(self._places, items))
        return counts

    def forecast(self, lane: Lane, more: Mapping[Lane, int], limit: int) -> Counter[Hashable]:
        """How many places will have been taken in each group when all items of a lane have.

        Args:
            lane: which; it need not be there yet.
            more: how many items are to come, by lane; each takes as many places as the last one of its lane.
            limit: of a batch.
        """
        waiting = Counter({other: len(items) for other, items in self._lanes.items()}) + Counter(more)
        own = waiting[lane]
        groups, largest = Counter[Hashable](), Counter[Hashable]()
        # Items of the group that come before the lane's last, and that one: those that fill a batch alone,
        # the others, the places that these take, and the most that one of them takes.
        large = small = small_places = widest = 0
        for other, n in waiting.items():
            places = self._latest.get(other, 1)
            groups[other.group] += places * n
            largest[other.group] = max(largest[other.group], places)
            if other.group == lane.group:
                turns = min(n, own)
                if places >= limit:
                    large += turns
                else:
                    small, small_places, widest = (
                        small + turns,
                        small_places + places * turns,
                        max(widest, places),
                    )
        # A batch ends before what does not fit, with fewer empty places than that takes, or before a large
        # one.
        batches = large + min(large, small) + math.ceil(small_places / (limit - max(0, widest - 1)))
        # A batch is answered when all of it is done, and the groups take turns as the lanes do.
        return Counter({group: min(n, batches * max(limit, largest[group])) for group, n in groups.items()})
