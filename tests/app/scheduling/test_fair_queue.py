from collections import Counter, deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.scheduling.fair_queue import FairQueue, MovingAverage


def queue(text: str, **costs: float) -> FairQueue[str]:
    """Make a queue of "a a b" with known seconds per item of a lane."""
    made = FairQueue[str]()
    for name, seconds in costs.items():
        made.put(name, "known")
        made.pop(name)
        made.settle(name, seconds)
    for name in text.split():
        made.put(name, name)
    return made


def serve(waiting: FairQueue[str], items: int, **seconds: float) -> str:
    """Take items one by one, each with its seconds."""
    served = []
    for _ in range(items):
        name = next(iter(waiting.heads()))
        served.append(waiting.pop(name))
        waiting.settle(name, seconds.get(name, 1.0))
    return " ".join(served)


def test_lanes_take_turns() -> None:
    assert serve(queue("a a a b c c"), 6) == "a b c a c a"


def test_lanes_share_time_and_not_items() -> None:
    """Each item of ten seconds is followed by ten of one second."""
    served = serve(queue("slow " * 5 + "quick " * 60), 44, slow=10.0)
    assert Counter(served.split()) == {"slow": 4, "quick": 40}


def test_running_item_counts_as_the_average_of_its_lane() -> None:
    waiting = queue("a a b b", a=2.0, b=1.0)
    assert [waiting.pop(next(iter(waiting.heads()))) for _ in range(4)] == ["a", "b", "b", "a"]


def test_idle_lane_saves_no_time() -> None:
    waiting = queue("a " * 9)
    serve(waiting, 4)
    for _ in range(4):
        waiting.put("late", "late")
    assert serve(waiting, 4) in ("late a late a", "a late a late")


def test_lane_with_single_items_pays_for_them() -> None:
    waiting = queue("slow quick quick quick quick", slow=5.0, quick=1.0)
    assert serve(waiting, 1, slow=5.0) == "slow"
    waiting.put("slow", "slow")
    assert serve(waiting, 5) == "quick quick quick quick slow"


def test_virtual_times_restart_when_nothing_waits() -> None:
    waiting = queue("a")
    serve(waiting, 1, a=100.0)
    for name in ("a", "b"):
        waiting.put(name, name)
    assert serve(waiting, 2) == "a b"  # the least recently served lane is the first of the two


def test_unprocessed_item_costs_nothing() -> None:
    waiting = queue("a a", a=3.0)
    waiting.pop("a")
    waiting.settle("a", None)
    assert (waiting.start("a"), waiting.cost("a")) == (0.0, 3.0)


def test_removed_items_are_gone() -> None:
    waiting = FairQueue[int]()
    for item in range(3):
        waiting.put("a", item)
    waiting.remove("a", 0)
    waiting.remove("a", 7)
    assert (len(waiting), waiting.heads()) == (2, {"a": 1})


def test_work_before_includes_a_fair_share_of_others() -> None:
    waiting = queue("flood " * 40 + "few few", flood=0.1, few=0.1)
    assert sum(waiting.work().values()) == pytest.approx(4.2)
    assert waiting.work_before("flood", 1) == pytest.approx(4.1 + 0.2)
    # Three of its own, and as many of the other lane.
    assert waiting.work_before("few", 1) == pytest.approx(0.6)
    # More of both lanes are to come.
    assert waiting.work_before("few", 1, {"few": 4, "flood": 90}) == pytest.approx(1.4)
    # A lane never seen costs as much as the slowest one.
    assert waiting.work_before("new", 2) == pytest.approx(0.2 + 0.2 + 0.2)


def test_average_follows_a_trend_but_no_outlier() -> None:
    average = MovingAverage()
    assert average.value is None
    for _ in range(20):
        average.add(0.1)
    assert average.add(60.0) == pytest.approx(0.3)
    assert average.value == pytest.approx(0.14)
    for _ in range(20):
        average.add(0.4)
    assert average.value == pytest.approx(0.4, rel=0.02)


def test_slow_first_duration_fades() -> None:
    average = MovingAverage()
    for seconds in [1.0] + [0.02] * 15:
        average.add(seconds)
    assert average.value is not None
    assert average.value < 0.05


@given(st.lists(st.sampled_from("abc"), max_size=40), st.lists(st.floats(0, 5), min_size=40, max_size=40))
def test_every_item_is_served_once_in_the_order_of_its_lane(sent: list[str], seconds: list[float]) -> None:
    waiting = FairQueue[int]()
    lanes = {name: deque(i for i, one in enumerate(sent) if one == name) for name in "abc"}
    for item, name in enumerate(sent):
        waiting.put(name, item)
    for took in seconds[: len(sent)]:
        name = next(iter(waiting.heads()))
        assert waiting.pop(name) == lanes[name].popleft()
        waiting.settle(name, took)
    assert not waiting
