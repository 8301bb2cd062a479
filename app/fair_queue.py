"""A line for work of several categories: each has as much time, whatever the others send."""

import math
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Hashable, Mapping
from heapq import heapify, heappop, heappush
from itertools import count
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
    """Lanes that take turns, one item a turn: whose items have taken least time is next.

    That is start-time fair queueing (Goyal, Vin and Cheng 1996): beside a lane whose items take a second
    each, one of milliseconds has hundreds done between two of them. A lane that was idle begins where the
    others are, and has saved up nothing.

    An item may take several places of a batch, and one that takes more than a batch has gets a batch alone.

    A batch begins with the lane whose turn it is, and takes in the lanes of its group. So an item of a
    category that sends little is in the next batch but for those of other groups, as long as the group has
    no more lanes than a batch has places: however long another lane is.

    Not safe for several threads by itself.

    Args:
        places: how many places of a batch an item takes; by default one.
        pace: seconds that a place of a group takes, as far as is known; by default as long in all.
    """

    def __init__(
        self, places: Callable[[T], int] = lambda _: 1, pace: Callable[[Hashable], float] = lambda _: 1.0
    ) -> None:
        self._places = places
        self._pace = pace
        self._latest: dict[Lane, int] = {}  # places of the item that was last put into a lane
        self._lanes: OrderedDict[Lane, deque[T]] = OrderedDict()  # none empty; who was served last is last
        # When a lane may have its next turn, in seconds that its items took; of idle ones if that is to come.
        self._starts: dict[Lane, float] = {}
        self._now = 0.0  # the start of the batch that was taken last

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values()))

    def put(self, lane: Lane, item: T) -> None:
        """Add an item at the end of its lane."""
        if lane not in self._lanes:
            self._lanes[lane] = deque()
            self._starts[lane] = self._start(lane)
        self._lanes[lane].append(item)
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

    def take(self, limit: int, into: list[T], seconds: float = math.inf) -> None:
        """Move the next batch into a list: items of one group, in at most `limit` places; or nothing.

        Into an empty list one item is taken however many places it takes.

        Args:
            limit: places.
            into: where to.
            seconds: that a batch may take, as far as is known, if it has more than one item.
        """
        first = min(self._lanes, key=self._starts.__getitem__, default=None)
        if first is None:
            return
        self._now = max(self._now, self._starts[first])
        for idle in [lane for lane, start in self._starts.items() if start <= self._now]:
            if idle not in self._lanes:
                del self._starts[idle]
        pace = self._pace(first.group)
        limit = _fit(limit, pace, seconds)
        taken = sum(map(self._places, into))
        # Of those with the least start the first, for who was served last is last.
        order = count()
        turns = [(self._starts[lane], next(order), lane) for lane in self._lanes if lane.group == first.group]
        heapify(turns)
        while turns and taken < limit:
            start, _, lane = heappop(turns)
            items = self._lanes[lane]
            places = self._places(items[0])
            taken += places
            if taken > limit and into:  # its lane keeps its turn
                return
            into.append(items.popleft())
            self._starts[lane] = start + places * pace
            if items:
                self._lanes.move_to_end(lane)
                heappush(turns, (self._starts[lane], next(order), lane))
            else:
                del self._lanes[lane]

    def clear(self) -> list[T]:
        """Empty the queue; what waited."""
        waiting = [item for items in self._lanes.values() for item in items]
        self._lanes.clear()
        self._starts.clear()
        return waiting

    def waiting(self) -> Counter[Hashable]:
        """How many places the items of each group that wait take."""
        counts = Counter[Hashable]()
        for lane, items in self._lanes.items():
            counts[lane.group] += sum(map(self._places, items))
        return counts

    def forecast(
        self, lane: Lane, more: Mapping[Lane, int], limit: int, seconds: float = math.inf
    ) -> Counter[Hashable]:
        """How many places will have been taken in each group when all items of a lane have.

        Args:
            lane: which; it need not be there yet.
            more: how many items are to come, by lane; each takes as many places as the last one of its lane.
            limit: of a batch.
            seconds: likewise, see `take`.
        """
        waiting = Counter({other: len(items) for other, items in self._lanes.items()}) + Counter(more)
        groups: defaultdict[Hashable, list[Lane]] = defaultdict(list)
        for other in waiting:
            groups[other.group].append(other)
        pace = self._pace(lane.group)
        start = self._start(lane) + (waiting[lane] - 1) * self._latest.get(lane, 1) * pace
        beside = groups.get(lane.group, [])
        own = self._batches(beside, waiting, start, _fit(limit, pace, seconds), pace)
        if own == 1:  # that begins with the first lane of the group
            start = min(map(self._start, beside))
        ahead = Counter[Hashable]()
        for group, lanes in groups.items():
            pace = self._pace(group)
            most = _fit(limit, pace, seconds)
            batches = own if group == lane.group else self._batches(lanes, waiting, start, most, pace)
            largest = max(self._latest.get(other, 1) for other in lanes)
            # A batch is answered when all of it is done.
            places = sum(waiting[other] * self._latest.get(other, 1) for other in lanes)
            ahead[group] = min(places, batches * max(most, largest))
        return +ahead

    def _batches(
        self, lanes: list[Lane], waiting: Mapping[Lane, int], start: float, limit: int, pace: float
    ) -> int:
        """How many batches of a group there are, at most, until none of its items may begin by a start."""
        # Items that fill a batch alone, the others, the places that these take, and the most that one takes.
        large = small = small_places = widest = 0
        for lane in lanes:
            turns = waiting[lane]
            early = start - self._start(lane)
            if early < 0:
                continue
            places = self._latest.get(lane, 1)
            if pace > 0:
                # Sums of fractions: one that begins at the same time may seem to begin a trifle later.
                turns = min(turns, math.floor(early / (places * pace) + 1e-6) + 1)
            if places >= limit:
                large += turns
            else:
                small, small_places = small + turns, small_places + places * turns
                widest = max(widest, places)
        # A batch ends before what does not fit, with fewer empty places than that takes, or before a large
        # one.
        return large + min(large, small) + math.ceil(small_places / (limit - max(0, widest - 1)))

    def _start(self, lane: Lane) -> float:
        return max(self._starts.get(lane, 0.0), self._now)


def _fit(limit: int, pace: float, seconds: float) -> int:
    """How many places a batch has that is to take so many seconds at most; one in any case."""
    return limit if limit * pace <= seconds else max(1, int(seconds / pace))
