import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from app import turns as module
from app.turns import Turns


@pytest.fixture
def turns() -> Iterator[Turns]:
    turns = Turns(1, "tested")
    yield turns
    turns.close()


def test_what_nobody_waits_for_is_forgotten_at_once(turns: Turns) -> None:
    """Uploads of clients that left would fill memory while a thread is busy: nobody counts them any more."""
    begun, release = threading.Event(), threading.Event()

    def hold() -> str:
        begun.set()
        assert release.wait(60)
        return "held"

    async def scenario() -> None:
        held = asyncio.ensure_future(turns.do("a", hold))
        assert await asyncio.to_thread(begun.wait, 60)
        kept = asyncio.ensure_future(turns.do("a", lambda: "kept"))
        uploads = [np.zeros(1000) for _ in range(3)]
        alive = [weakref.ref(upload) for upload in uploads]
        left = [asyncio.ensure_future(turns.do("a", partial(len, upload))) for upload in uploads]
        await asyncio.sleep(0)
        assert len(turns) == 4
        for job in left:
            job.cancel()
        found = await asyncio.gather(*left, return_exceptions=True)
        assert [type(one) for one in found] == [asyncio.CancelledError] * 3
        del job, left, found
        uploads.clear()
        await asyncio.sleep(0)  # after which the event loop has let go of them, too
        assert len(turns) == 1
        assert all(ref() is None for ref in alive)
        release.set()
        assert [(await one).value for one in (held, kept)] == ["held", "kept"]
        assert len(turns) == 0

    asyncio.run(scenario())


def test_one_that_is_being_done_can_be_left(turns: Turns) -> None:
    begun, release = threading.Event(), threading.Event()
    done: list[str] = []

    def work() -> None:
        begun.set()
        assert release.wait(60)
        done.append("to its end")

    async def scenario() -> None:
        job = asyncio.ensure_future(turns.do("a", work))
        assert await asyncio.to_thread(begun.wait, 60)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        release.set()
        assert (await turns.do("a", lambda: list(done))).value == ["to its end"]

    asyncio.run(scenario())


def test_one_that_fails_fails_alone(turns: Turns) -> None:
    async def scenario() -> None:
        jobs = [turns.do("a", partial(divmod, 7, by)) for by in (2, 0, 3)]
        first, second, third = await asyncio.gather(*jobs, return_exceptions=True)
        assert not isinstance(first, BaseException)
        assert not isinstance(third, BaseException)
        assert (first.value, third.value) == ((3, 1), (2, 1))
        assert isinstance(second, ZeroDivisionError)

    asyncio.run(scenario())


class Clock:
    """Stands still but for what jobs say they take."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.done: list[str] = []
        monkeypatch.setattr(module, "time", self)

    def perf_counter(self) -> float:
        return self.now

    def job(self, name: str, seconds: float) -> None:
        self.now += seconds
        self.done.append(name)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def order(turns: Turns, clock: Clock, *jobs: tuple[str, float]) -> list[str]:
    """In which order jobs are done that all waited while the thread was busy with another lane's."""
    begun, release = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        assert release.wait(60)

    held = turns.submit("held", hold)
    assert begun.wait(60)
    waiting = [turns.submit(name, partial(clock.job, name, seconds)) for name, seconds in jobs]
    release.set()
    for one in (held, *waiting):
        one.result(60)
    done, clock.done = clock.done, []
    return done


def test_lanes_of_quick_jobs_take_turns_one_by_one(turns: Turns, clock: Clock) -> None:
    """Though they do not take quite as long."""
    jobs = [("a", 0.001), ("a", 0.004), ("a", 0.001), ("b", 0.003), ("b", 0.001), ("c", 0.002)]
    assert "".join(order(turns, clock, *jobs)) == "abcaba"


def test_who_sends_what_takes_long_holds_up_others_by_one_job(turns: Turns, clock: Clock) -> None:
    """A flood of pictures of seconds each, beside a line whose pictures take a hundredth."""
    jobs = [("large", 1.0)] * 3 + [("small", 0.004)] * 250
    done = order(turns, clock, *jobs)
    assert [i for i, name in enumerate(done) if name == "large"] == [0, 201, 252]


def test_what_a_lane_has_used_is_counted_while_it_runs(clock: Clock) -> None:
    """By what its job before has taken: two threads do not both take what takes long."""
    turns = Turns(2, "tested")
    begun = threading.Semaphore(0)
    release = {name: threading.Event() for name in ("other", "large", "small")}
    taken: list[str] = []

    def hold(name: str) -> None:
        taken.append(name)
        begun.release()
        assert release[name].wait(60)

    try:
        jobs = [turns.submit("other", partial(hold, "other"))]
        assert begun.acquire(timeout=60)
        turns.submit("large", partial(clock.job, "large", 1.0)).result(60)
        for name in ("large", "large", "small"):
            jobs.append(turns.submit(name, partial(hold, name)))
            if len(jobs) == 2:
                assert begun.acquire(timeout=60)  # nobody else waits
        release["other"].set()
        assert begun.acquire(timeout=60)
        assert taken == ["other", "large", "small"]
        for event in release.values():
            event.set()
        for job in jobs:
            job.result(60)
    finally:
        for event in release.values():
            event.set()
        turns.close()


@pytest.fixture
def others(turns: Turns, clock: Clock) -> Iterator[Callable[[int], None]]:
    """A lane that always has jobs, so that time goes on for all; does so many of them."""
    permits, done = threading.Semaphore(0), threading.Semaphore(0)
    jobs = 60

    def one() -> None:
        assert permits.acquire(timeout=60)
        clock.now += 0.004
        done.release()

    waiting = [turns.submit("others", one) for _ in range(jobs)]

    def do(count: int) -> None:
        for _ in range(count):
            permits.release()
        for _ in range(count):
            assert done.acquire(timeout=60)

    yield do
    permits.release(jobs)
    for job in waiting:
        job.result(60)


def test_a_lane_that_was_idle_has_saved_up_nothing(
    turns: Turns, clock: Clock, others: Callable[[int], None]
) -> None:
    """It has its turns beside others, and not all that it missed before."""
    others(20)
    jobs = [turns.submit("idle", partial(clock.job, "idle", 0.004)) for _ in range(10)]
    others(5)
    assert 3 <= len(clock.done) <= 7
    others(6)
    for job in jobs:
        job.result(60)


def test_a_lane_that_owes_is_remembered_until_it_does_not(
    turns: Turns, clock: Clock, others: Callable[[int], None]
) -> None:
    large = turns.submit("large", partial(clock.job, "large", 0.099))  # twenty of the others'
    others(2)
    large.result(60)
    again = turns.submit("large", partial(clock.job, "large", 0.099))
    others(12)
    assert clock.done == ["large"]
    others(10)
    again.result(60)
    assert "large" in turns._lanes
    others(30)
    assert "large" not in turns._lanes


def test_one_lane_goes_before_all_others(clock: Clock) -> None:
    turns = Turns(1, "tested", first="first")
    try:
        jobs = [("a", 0.001), ("b", 0.001), ("first", 5.0), ("a", 0.001), ("first", 5.0)]
        assert order(turns, clock, *jobs) == ["first", "first", "a", "b", "a"]
    finally:
        turns.close()


def test_lanes_that_owe_nothing_are_forgotten(turns: Turns) -> None:
    for number in range(300):
        turns.submit(f"lane {number}", lambda: None).result(60)
    turns.submit("last", lambda: None).result(60)
    assert len(turns._lanes) <= 2  # that a thread may not have ended yet


def test_what_has_failed_is_let_go_without_a_collection(turns: Turns) -> None:
    """An upload that cannot be decoded is in nobody's account any more."""

    def fail(upload: NDArray[np.float64]) -> None:
        raise ValueError(len(upload))

    async def scenario() -> None:
        upload = np.zeros(1000)
        alive = weakref.ref(upload)
        try:
            await turns.do("a", partial(fail, upload))
        except ValueError:
            pass
        else:
            pytest.fail("it did not fail")
        del upload
        await turns.do("a", lambda: None)  # after which the thread is past it
        await asyncio.sleep(0)
        assert alive() is None

    gc.collect()
    gc.disable()
    try:
        asyncio.run(scenario())
    finally:
        gc.enable()


def test_the_end_drops_what_waits(clock: Clock) -> None:
    turns = Turns(1, "tested")
    begun, release = threading.Event(), threading.Event()

    def hold() -> str:
        begun.set()
        assert release.wait(60)
        return "held"

    held = turns.submit("a", hold)
    assert begun.wait(60)
    waiting = turns.submit("b", lambda: None)
    closing = threading.Thread(target=turns.close)
    closing.start()
    while not waiting.cancelled():
        time.sleep(0.001)
    release.set()
    closing.join(60)
    assert held.result(60).value == "held"
