import pytest

from app.limits import TokenBuckets


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_as_many_at_once_as_in_a_minute_then_one_by_one() -> None:
    clock = Clock()
    buckets = TokenBuckets(10, clock)
    assert [buckets.take("a", 60) for _ in range(60)] == [0] * 60
    assert buckets.take("a", 60) == pytest.approx(1)
    clock.now += 0.5
    assert buckets.take("a", 60) == pytest.approx(0.5)
    clock.now += 0.5
    assert buckets.take("a", 60) == 0
    assert buckets.take("a", 60) > 0


def test_a_refusal_costs_nothing() -> None:
    clock = Clock()
    buckets = TokenBuckets(10, clock)
    assert buckets.take("a", 1) == 0
    for _ in range(100):
        assert buckets.take("a", 1) > 0
    clock.now += 60
    assert buckets.take("a", 1) == 0


def test_a_long_pause_fills_no_more_than_the_bucket() -> None:
    clock = Clock()
    buckets = TokenBuckets(10, clock)
    buckets.take("a", 5)
    clock.now += 1e6
    assert [buckets.take("a", 5) == 0 for _ in range(6)] == [True] * 5 + [False]


def test_keeps_the_average_however_requests_come() -> None:
    clock = Clock()
    buckets = TokenBuckets(10, clock)
    taken = 0
    for _ in range(6000):  # ten minutes, ten a second
        taken += buckets.take("a", 60) == 0
        clock.now += 0.1
    assert taken == pytest.approx(60 + 600, abs=2)


def test_a_clock_that_stands_or_goes_back_gives_nothing() -> None:
    clock = Clock()
    buckets = TokenBuckets(10, clock)
    assert buckets.take("a", 1) == 0
    clock.now -= 500
    assert buckets.take("a", 1) > 0


def test_names_do_not_share() -> None:
    buckets = TokenBuckets(10, Clock())
    assert buckets.take("a", 1) == 0
    assert buckets.take("b", 1) == 0


def test_a_flood_of_names_stays_within_bounds_and_drops_the_idle_first() -> None:
    buckets = TokenBuckets(100, Clock())
    buckets.take("idle", 1)
    for i in range(10_000):
        buckets.take("busy", 1)
        buckets.take(f"flood {i}", 1)
    assert len(buckets._buckets) == 100
    assert buckets.take("busy", 1) > 0
    assert buckets.take("idle", 1) == 0
