"""A line for work of several categories: each has as much time, whatever the others send."""

import math
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")
# How many places a batch of a group has.
Limit = Callable[[Hashable], int]


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

    A batch begins with the lane whose turn it is, and takes in the lanes of its group, unless they are ahead
    of those of other groups by a batch. So an item of a category that sends little is in the next batch but
    for those of other groups, as long as the group has no more lanes than a batch has places: however long
    another lane is.

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
        # The lanes of that batch with the places that each of their items took, and what a place was counted.
        self._taken: list[tuple[Lane, int]] = []
        self._counted = 0.0

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

    def take(self, limit: Limit, into: list[T]) -> None:
        """Move the next batch into a list: items of one group, in no more places than it has; or nothing.

        Into an empty list one item is taken however many places it takes.
        """
        first = min(self._lanes, key=self._starts.__getitem__, default=None)
        if first is None:
            return
        self._now = self._starts[first]
        self._starts = {
            lane: start for lane, start in self._starts.items() if lane in self._lanes or start > self._now
        }
        pace, most = self._pace(first.group), limit(first.group)
        until = self._until(first.group, self._lanes, limit)
        self._taken, self._counted = [], pace
        taken = sum(map(self._places, into))
        # Of those with the least start the first, for who was served last is last.
        order = count()
        turns = [(self._starts[lane], next(order), lane) for lane in self._lanes if lane.group == first.group]
        heapify(turns)
        while turns and taken < most:
            start, _, lane = heappop(turns)
            items = self._lanes[lane]
            places = self._places(items[0])
            taken += places
            if into and (taken > most or start > until):  # its lane keeps its turn
                return
            into.append(items.popleft())
            self._taken.append((lane, places))
            self._starts[lane] = start + places * pace
            if items:
                self._lanes.move_to_end(lane)
                heappush(turns, (self._starts[lane], next(order), lane))
            else:
                del self._lanes[lane]

    def settle(self, pace: float) -> None:
        """Count of the batch that was taken last what a place of it took, in seconds: it was a guess."""
        for lane, places in self._taken:
            if lane in self._starts:
                self._starts[lane] = max(self._now, self._starts[lane] + places * (pace - self._counted))
        self._taken = []

    def rest(self, seconds: float) -> None:
        """Let time pass in which nothing waited and nothing was done: nobody owes so much any more."""
        self._now += seconds

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

    def forecast(self, lane: Lane, more: Mapping[Lane, int], limit: Limit) -> Counter[Hashable]:
        """How many places will have been taken in each group when all items of a lane have.

        Of lanes of other groups that have had turns lately, items are counted that they will send meanwhile.

        Args:
            lane: which; it need not be there yet.
            more: how many items are to come, by lane; each takes as many places as the last one of its lane.
            limit: of batches.
        """
        waiting = Counter({other: len(items) for other, items in self._lanes.items()}) + Counter(more)
        groups: defaultdict[Hashable, list[Lane]] = defaultdict(list)
        for other in waiting:
            groups[other.group].append(other)
        own = lane.group
        cost = self._latest.get(lane, 1) * self._pace(own)
        start = self._start(lane) + (waiting[lane] - 1) * cost
        found = Counter[Hashable]()
        if beside := groups.pop(own, []):
            is_cut = start > self._until(own, waiting, limit)
            batches, found[own] = self._ahead(beside, waiting, start, limit(own), is_cut=is_cut)
            if batches == 1:  # that begins with the first lane of the group
                start = min(map(self._start, beside))
        for group, lanes in groups.items():
            is_cut = start > self._until(group, waiting, limit)
            _, found[group] = self._ahead(lanes, waiting, start, limit(group), is_cut=is_cut, is_other=True)
        return +found

    def _ahead(
        self,
        lanes: list[Lane],
        waiting: Mapping[Lane, int],
        start: float,
        limit: int,
        *,
        is_cut: bool,
        is_other: bool = False,
    ) -> tuple[int, int]:
        """Of a group, how many batches and places there are, at most, until none of its items may begin.

        Args:
            lanes: of the group.
            waiting: how many items of each there are.
            start: when all that begins by then has begun.
            limit: places of a batch.
            is_cut: whether a batch may end before it is full, since its lanes are ahead of other groups.
            is_other: whether its lanes may send more meanwhile.
        """
        # Items that fill a batch alone, the others, the places that these take, the most that one takes, and
        # the most of all.
        large = small = small_places = widest = largest = 0
        total = 0  # places, of whatever may fill up these batches
        pace = self._pace(lanes[0].group)
        for lane in lanes:
            turns, places = waiting[lane], self._latest.get(lane, 1)
            total += turns * places
            begins = self._start(lane)
            if begins > start:
                continue
            if pace > 0:
                # Sums of fractions: one that begins at the same time may seem to begin a trifle later.
                in_time = math.floor((start - begins) / (places * pace) + 1e-6) + 1
                if is_other and begins > self._now:
                    total += max(0, in_time - turns) * places
                    turns = in_time
                turns = min(turns, in_time)
            largest = max(largest, places)
            if places >= limit:
                large += turns
            else:
                small, small_places = small + turns, small_places + places * turns
                widest = max(widest, places)
        # A batch ends before what does not fit, with fewer empty places than that takes, or before a large
        # one.
        batches = large + min(large, small) + math.ceil(small_places / (limit - max(0, widest - 1)))
        if is_cut and batches:  # the last one begins with what was left, and may be full
            batches += 1
        # A batch is answered when all of it is done.
        return batches, min(total, batches * max(limit, largest))

    def _until(self, group: Hashable, lanes: Iterable[Lane], limit: Limit) -> float:
        """How late a lane of a group may begin to come along in a batch: a batch ahead of those of others.

        Or lanes that are far ahead would have the time of others, in batches that one begins who is not.
        """
        others = (self._start(lane) for lane in lanes if lane.group != group)
        return min(others, default=math.inf) + limit(group) * self._pace(group)

    def _start(self, lane: Lane) -> float:
        return max(self._starts.get(lane, 0.0), self._now)
