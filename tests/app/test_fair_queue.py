import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.fair_queue import FairQueue, Lane, Limit


def lane(name: str) -> Lane:
    """Lanes "a1", "a2", "b1": the letter is the group."""
    return Lane(name, name[0])


def queue(text: str) -> FairQueue[str]:
    """A queue that was sent "a1 a1 b1": items are named by their lane and their place in it."""
    made: FairQueue[str] = FairQueue()
    sent = Counter[str]()
    for name in text.split():
        made.put(lane(name), f"{name}.{sent[name]}")
        sent[name] += 1
    return made


def take(waiting: FairQueue[str], limit: int) -> str:
    taken: list[str] = []
    waiting.take(each(limit), taken)
    return " ".join(taken)


def each(limit: int) -> Limit:
    """So many places for every group."""
    return lambda _: limit


def test_lanes_take_turns_one_item_at_a_time() -> None:
    waiting = queue("a1 a1 a1 a2 a3 a3")
    assert take(waiting, 4) == "a1.0 a2.0 a3.0 a1.1"
    assert take(waiting, 4) == "a3.1 a1.2"
    assert take(waiting, 4) == ""


def test_who_was_left_out_is_first_in_the_next_batch() -> None:
    waiting = queue("a1 a1 a1 a2 a2 a2 a3 a3 a3")
    assert [take(waiting, 2) for _ in range(5)] == [
        "a1.0 a2.0",
        "a3.0 a1.1",
        "a2.1 a3.1",
        "a1.2 a2.2",
        "a3.2",
    ]


def test_one_that_comes_late_is_in_the_next_batch_however_long_the_other_lanes_are() -> None:
    waiting = queue("a1 " * 1000 + "a2 " * 1000)
    take(waiting, 8)
    waiting.put(lane("a3"), "late")
    assert "late" in take(waiting, 8).split()


def test_a_batch_has_one_group_and_groups_take_turns() -> None:
    waiting = queue("a1 " * 6 + "b1 " * 6 + "a2 b2")
    assert [take(waiting, 4) for _ in range(5)] == [
        "a1.0 a2.0 a1.1 a1.2",
        "b1.0 b2.0 b1.1 b1.2",
        "a1.3 a1.4 a1.5",
        "b1.3 b1.4 b1.5",
        "",
    ]


def test_a_group_in_a_hurry_does_not_keep_another_waiting() -> None:
    waiting = queue("a1 " * 100)
    take(waiting, 4)
    waiting.put(lane("b1"), "other")
    batches = []
    for _ in range(3):
        for _ in range(4):
            waiting.put(lane("a1"), "more")
        batches.append(take(waiting, 4))
    assert "other" in batches[:2]


def test_takes_into_what_is_given_up_to_the_limit_in_all() -> None:
    taken = ["before"]
    queue("a1 a1 a1").take(each(3), taken)
    assert taken == ["before", "a1.0", "a1.1"]


def test_what_is_removed_is_gone() -> None:
    waiting = queue("a1 a1 a2")
    assert waiting.remove(lane("a1"), "a1.0")
    assert not waiting.remove(lane("a1"), "a1.0")
    assert not waiting.remove(lane("a9"), "a9.0")
    assert waiting.remove(lane("a2"), "a2.0")
    assert len(waiting) == 1
    assert take(waiting, 9) == "a1.1"
    assert not waiting


def test_clear_gives_what_waited() -> None:
    waiting = queue("a1 b1 a1")
    assert sorted(waiting.clear()) == ["a1.0", "a1.1", "b1.0"]
    assert len(waiting) == 0


def test_counts_by_group() -> None:
    assert queue("a1 a2 a2 b1").waiting() == {"a": 3, "b": 1}


@pytest.mark.parametrize(
    ("sent", "name", "items", "expected"),
    [
        ("", "a1", 1, {"a": 1}),
        ("", "a1", 9, {"a": 9}),
        ("a1 a1", "a1", 1, {"a": 3}),
        # One image of another category is in the next batch of four, whatever waits.
        ("a1 " * 100, "a2", 1, {"a": 4}),
        ("a1 " * 100, "a2", 3, {"a": 8}),
        ("a1 " * 100, "a1", 1, {"a": 101}),
        # Another group has one batch for each of ours.
        ("b1 " * 100, "a1", 1, {"a": 1, "b": 4}),
        ("b1 " * 100 + "a1 " * 4, "a1", 1, {"a": 5, "b": 8}),
        ("b1", "a1", 1, {"a": 1, "b": 1}),
    ],
)
def test_forecast(sent: str, name: str, items: int, expected: dict[str, int]) -> None:
    waiting = queue(sent)
    assert waiting.forecast(lane(name), {lane(name): items}, each(4)) == expected
    assert len(waiting) == len(sent.split())


def test_forecast_of_what_is_to_come() -> None:
    more = {lane("a1"): 1, lane("a2"): 50, lane("b1"): 50, lane("b2"): 1}
    assert queue("a1 b2").forecast(lane("a1"), more, each(4)) == {"a": 4, "b": 4}
    assert queue("").forecast(lane("b1"), more, each(4)) == {"a": 51, "b": 51}


@given(
    st.lists(st.sampled_from(["a1", "a2", "a3", "a4", "a5"]), max_size=60),
    st.integers(1, 8),
    st.integers(0, 40),
)
def test_the_forecast_holds(sent: list[str], limit: int, served: int) -> None:
    waiting = queue(" ".join(sent))
    for _ in range(served // limit):
        take(waiting, limit)
    expected = waiting.forecast(lane("a3"), {lane("a3"): 1}, each(limit))["a"]
    waiting.put(lane("a3"), "mine")
    taken = 0
    while batch := take(waiting, limit).split():
        taken += len(batch)
        if "mine" in batch:
            break
    assert taken <= expected


def large(text: str, paces: Mapping[Hashable, float] | None = None) -> FairQueue[str]:
    """A queue of items that take as many places as the digit after their lane's name says: "a1x3"."""
    known = defaultdict(lambda: 1.0, paces or {})
    made: FairQueue[str] = FairQueue(lambda item: int(item.split("x")[1]), known.__getitem__)
    for item in text.split():
        made.put(lane(item.split("x")[0]), item)
    return made


def test_places_are_counted_and_what_does_not_fit_keeps_its_turn() -> None:
    waiting = large("a1x3 a1x3 a2x2 a2x1 a3x1")
    assert take(waiting, 4) == "a1x3"
    assert take(waiting, 4) == "a2x2 a3x1 a2x1"
    assert take(waiting, 4) == "a1x3"


def test_an_item_larger_than_a_batch_gets_one_alone() -> None:
    waiting = large("a1x9 a2x1 a1x9")
    assert [take(waiting, 4) for _ in range(4)] == ["a1x9", "a2x1", "a1x9", ""]
    taken = ["a3x1"]
    large("a1x9").take(each(4), taken)
    assert taken == ["a3x1"]


def test_groups_share_the_time_and_not_the_items() -> None:
    """A place of group a takes ten times as long as one of group b, which for each has ten done."""
    waiting = large("a1x1 " * 20 + "b1x1 " * 200, {"a": 1.0, "b": 0.1})
    turns = [(batch[0], len(batch.split())) for batch in (take(waiting, 4) for _ in range(12))]
    assert turns[:2] == [("a", 4), ("b", 4)]
    done = Counter[str]()
    for name, n in turns:
        done[name] += n
    assert done == {"a": 8, "b": 40}


def test_lanes_of_a_group_share_its_places() -> None:
    """Pictures that are cut into nine tiles: of those without, nine are computed for each."""
    waiting = large("a1x9 " * 4 + "a2x1 " * 40)
    batches = [take(waiting, 9) for _ in range(4)]
    assert batches == ["a1x9", " ".join(["a2x1"] * 9), "a1x9", " ".join(["a2x1"] * 9)]


def test_an_idle_lane_saves_up_nothing() -> None:
    waiting = large("a1x1 " * 10)
    for _ in range(5):
        take(waiting, 1)
    waiting.put(lane("b1"), "b1x1")
    waiting.put(lane("b1"), "b1x1")
    # Not two at once, though it has had nothing of five.
    assert [take(waiting, 1) for _ in range(4)] == ["b1x1", "a1x1", "b1x1", "a1x1"]


def test_a_lane_that_sends_one_after_the_other_owes_what_it_took() -> None:
    """A camera whose picture takes nine times as long: the other one has nine inspected for each."""
    waiting = large("a1x9 " + "b1x1 " * 20)
    order = []
    for _ in range(12):
        order.append(take(waiting, 1))
        if order[-2:-1] == ["a1x9"]:  # the next one comes while another lane is served
            waiting.put(lane("a1"), "a1x9")
    assert order == ["a1x9", *["b1x1"] * 9, "a1x9", "b1x1"]


def test_what_comes_along_in_a_batch_waits_for_nobody_but_who_is_before_that() -> None:
    waiting = large("a1x3 a1x1 a2x1 " + "b1x1 " * 7)
    assert take(waiting, 3) == "a1x3"
    assert take(waiting, 2) == "a2x1"
    waiting.put(lane("a2"), "a2x1")
    # a1 may have its turn at 3, a2 at 1, and so may b1 at 0 and 1, and at 3 once more.
    assert waiting.forecast(lane("a1"), {}, each(3)) == {"a": 2, "b": 3}
    assert [take(waiting, 3) for _ in range(2)] == ["b1x1 b1x1 b1x1", "a2x1 a1x1"]


def test_a_batch_that_is_cut_for_others_leaves_room_for_more_in_the_next_one() -> None:
    waiting = large("a1x10 a3x11 a2x1 " + "b1x1 " * 30)
    assert [take(waiting, 4) for _ in range(2)] == ["a1x10", "a3x11"]
    for name in ["a1"] + ["a3"] * 6:
        waiting.put(lane(name), f"{name}x1")
    expected = waiting.forecast(lane("a1"), {}, each(4))["a"]
    taken: list[str] = []
    while "a1x1" not in taken:
        batch: list[str] = []
        waiting.take(each(4), batch)
        taken += batch
    assert [item for item in taken if item != "b1x1"] == ["a2x1", "a1x1", "a3x1", "a3x1", "a3x1"]
    assert expected >= 5


def test_what_lanes_owe_passes_while_nobody_waits() -> None:
    waiting = large("a1x9")
    take(waiting, 1)
    waiting.rest(7)
    waiting.put(lane("a1"), "a1x9")
    for _ in range(4):
        waiting.put(lane("b1"), "b1x1")
    assert [take(waiting, 1) for _ in range(4)] == ["b1x1", "b1x1", "a1x9", "b1x1"]


def test_a_guess_is_settled_by_what_a_batch_took() -> None:
    """A first batch that compiles something, or expires unseen, is no debt of a hundred seconds."""
    waiting = large("a1x1 a1x1 a1x1 b1x1 b1x1 b1x1 b1x1 b1x1", {"a": 100.0})
    assert take(waiting, 2) == "a1x1 a1x1"
    waiting.settle(1.5)
    batches = [take(waiting, 1) for _ in range(5)]
    assert batches == ["b1x1", "b1x1", "b1x1", "a1x1", "b1x1"]
    waiting.settle(1.0)
    waiting.clear()
    waiting.settle(5.0)
    assert take(waiting, 1) == ""


def test_a_lane_that_is_ahead_has_no_time_of_others_through_its_neighbour() -> None:
    """a1 sends one after the other and is first each time: a2 may not fill up its batches for ever."""
    clients = {"a1": 1, "a2": 20, "b1": 20}
    waiting: FairQueue[str] = FairQueue(pace=lambda _: 0.05)
    for name, n in clients.items():
        for _ in range(n):
            waiting.put(lane(name), name)
    done = Counter[str]()
    for _ in range(1000):
        batch = take(waiting, 16).split()
        done.update(batch)
        for name in batch:
            waiting.put(lane(name), name)
    assert done["a2"] == pytest.approx(done["b1"], rel=0.1)
    assert done["a1"] > 100


@pytest.mark.parametrize("rivals", [1, 3, 10])
def test_a_slow_lane_is_told_how_long_it_waits_beside_quick_ones_that_send_and_send(rivals: int) -> None:
    """All that a rival sends meanwhile comes first, not only what waits already."""
    paces = {"a": 1.0} | {f"{number}": 0.02 for number in range(rivals)}
    waiting: FairQueue[str] = FairQueue(pace=lambda group: paces[str(group)])
    slow, quick = Lane("slow", "a"), [Lane(f"q{number}", f"{number}") for number in range(rivals)]
    for one in [slow, *quick]:
        for _ in range(4):
            waiting.put(one, one.category)
    by_name = {one.category: one for one in [slow, *quick]}
    now, told = 0.0, [math.nan] * 4  # of each picture of the slow one that waits: when it is to be done
    late = []
    for _ in range(200 * rivals):
        batch = take(waiting, 4).split()
        now += sum(paces[str(by_name[name].group)] for name in batch)
        for name in batch:
            if name == "slow":
                late.append(now - told.pop(0))
            waiting.put(by_name[name], name)
            if name == "slow":
                ahead = waiting.forecast(slow, {}, each(4))
                told.append(now + sum(n * paces[str(group)] for group, n in ahead.items()))
    # But for the first batches, when nobody knew yet that they would.
    seen = [one for one in late if not math.isnan(one)][4:]
    assert len(seen) > 4
    assert max(seen) < 4  # a batch of its own, with which the Batcher counts what is left of one that runs


def test_lanes_that_are_gone_are_forgotten() -> None:
    waiting: FairQueue[str] = FairQueue()
    for number in range(100):
        waiting.put(lane(f"a{number}"), "one")
        take(waiting, 1)
    for _ in range(2):  # the others are even with it
        waiting.put(lane("a1"), "one")
        take(waiting, 1)
    assert list(waiting._starts) == [lane("a1")]


def test_groups_have_batches_of_their_own_size() -> None:
    waiting = large("a1x1 " * 9 + "b1x1", {"a": 0.1, "b": 9.0})
    taken: list[str] = []

    def limits(group: Hashable) -> int:
        return 3 if group == "a" else 1

    assert waiting.forecast(lane("b1"), {}, limits) == {"a": 3, "b": 1}
    waiting.take(limits, taken)
    assert taken == ["a1x1"] * 3
    taken.clear()
    waiting.take(limits, taken)
    assert taken == ["b1x1"]


def test_a_forecast_counts_places() -> None:
    waiting = large("a1x9 a1x9 a2x1 b1x4")
    assert waiting.waiting() == {"a": 19, "b": 4}
    # One batch each for the large one before it and for itself; another group has as many.
    assert waiting.forecast(lane("a2"), {}, each(4))["a"] >= 10
    assert waiting.forecast(lane("a1"), {lane("a1"): 1}, each(4))["a"] == 28
    # The large one ends the batch before it, and what did not fit there comes along in a third.
    assert large("a3x1 a3x1 a2x2 a1x1").forecast(lane("a1"), {}, each(2)) == {"a": 5}
    assert large("b1x9 b1x9 b1x9").forecast(lane("a1"), {lane("a1"): 1}, each(4)) == {"a": 1, "b": 9}
    assert large("a1x9 " + "b1x1 " * 40).forecast(lane("a1"), {}, each(4)) == {"a": 9, "b": 4}


@given(
    st.lists(st.sampled_from(["a1x1", "a2x3", "a3x2", "a4x9", "a5x4", "b1x1", "b2x7", "c1x2"]), max_size=40),
    st.integers(1, 8),
    st.integers(0, 9),
    st.fixed_dictionaries({group: st.sampled_from([0.0, 0.1, 1 / 3, 0.7, 5.0]) for group in "abc"}),
    st.sampled_from([1, 2, 8]),
)
def test_the_forecast_of_places_holds(
    sent: list[str], limit: int, served: int, paces: dict[Hashable, float], others: int
) -> None:
    def limits(group: Hashable) -> int:
        return limit if group == "a" else others

    def next_batch() -> list[str]:
        batch: list[str] = []
        waiting.take(limits, batch)
        return batch

    waiting = large(" ".join(sent), paces)
    gone = sum(next_batch().count("a3x2") for _ in range(served))
    waiting.put(lane("a3"), "a3x2")
    expected = waiting.forecast(lane("a3"), {}, limits)
    left = sent.count("a3x2") + 1 - gone
    taken = Counter[str]()
    while left:
        batch = next_batch()
        taken[batch[0][0]] += sum(int(item.split("x")[1]) for item in batch)
        left -= batch.count("a3x2")
    assert all(places <= expected[group] for group, places in taken.items())


@given(st.lists(st.sampled_from(["a1", "a2", "b1", "b2", "c1"]), max_size=80), st.integers(1, 9))
def test_everything_is_taken_once_in_the_order_of_its_lane(sent: list[str], limit: int) -> None:
    waiting = queue(" ".join(sent))
    batches: list[list[str]] = []
    while batch := take(waiting, limit).split():
        batches.append(batch)
        assert len(batch) <= limit
        assert len({item[0] for item in batch}) == 1
    taken = [item for batch in batches for item in batch]
    assert Counter(item.split(".")[0] for item in taken) == Counter(sent)
    for name in set(sent):
        places = [int(item.split(".")[1]) for item in taken if item.startswith(name)]
        assert places == sorted(places)
