import pytest

from app.middleware.rate_limits import TokenBuckets


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_burst_is_limited_then_refilled() -> None:
    clock = Clock()
    buckets = TokenBuckets(clock)
    assert [buckets.take("a", 60) for _ in range(60)] == [0] * 60
    assert buckets.take("a", 60) == pytest.approx(1)
    assert buckets.take("b", 60) == 0  # another name has its own
    clock.now += 0.5
    assert buckets.take("a", 60) == pytest.approx(0.5)  # a refusal costs nothing
    clock.now += 0.5
    assert buckets.take("a", 60) == 0
    assert buckets.take("a", 60) > 0


def test_long_pause_fills_only_the_bucket() -> None:
    clock = Clock()
    buckets = TokenBuckets(clock)
    buckets.take("a", 5)
    clock.now += 1e6
    assert [buckets.take("a", 5) == 0 for _ in range(6)] == [True] * 5 + [False]
