import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial

import numpy as np
import pytest

from app.scheduling.thread_pool import FairThreadPool, Timed


@pytest.fixture
def pool() -> Iterator[FairThreadPool]:
    pool = FairThreadPool(1, "tested", first="urgent")
    yield pool
    pool.close()


class Hold:
    """A job that keeps the pool's only thread until it is released."""

    def __init__(self, pool: FairThreadPool) -> None:
        self._begun, self._release = threading.Event(), threading.Event()
        self.future: Future[Timed[None]] = pool.submit("held", self._run)
        assert self._begun.wait(60)

    def _run(self) -> None:
        self._begun.set()
        assert self._release.wait(60)

    def release(self) -> None:
        self._release.set()


def order(pool: FairThreadPool, *lanes: str) -> list[str]:
    """The order in which jobs are done that all waited for the thread."""
    hold, done = Hold(pool), list[str]()
    jobs = [pool.submit(lane, partial(done.append, lane)) for lane in lanes]
    hold.release()
    for job in jobs:
        job.result(60)
    return done


def test_lanes_take_turns(pool: FairThreadPool) -> None:
    assert order(pool, "big", "big", "big", "small")[:2] == ["big", "small"]


def test_first_lane_goes_before_all_others(pool: FairThreadPool) -> None:
    assert order(pool, "a", "b", "urgent", "urgent") == ["urgent", "urgent", "a", "b"]


def test_jobs_wait_and_work_are_timed_apart(pool: FairThreadPool) -> None:
    hold = Hold(pool)
    waiting = pool.submit("a", lambda: "done")
    hold.release()
    timed = waiting.result(60)
    assert timed.value == "done"
    assert timed.waited > timed.took >= 0


def test_cancelled_jobs_are_never_run_and_forgotten_at_once(pool: FairThreadPool) -> None:
    """Uploads of clients that left would fill the memory while a thread is busy: nobody counts them."""

    async def scenario() -> None:
        hold = Hold(pool)
        upload = np.zeros(1000)
        alive = weakref.ref(upload)
        left = asyncio.ensure_future(pool.run("a", partial(len, upload)))
        kept = asyncio.ensure_future(pool.run("a", lambda: "kept"))
        await asyncio.sleep(0)
        assert len(pool) == 2
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        del left, upload
        await asyncio.sleep(0)  # after which the event loop has let go of it, too
        assert len(pool) == 1
        assert alive() is None
        hold.release()
        assert (await kept).value == "kept"

    asyncio.run(scenario())


def test_running_job_ends_although_its_caller_was_cancelled(pool: FairThreadPool) -> None:
    begun, release, done = threading.Event(), threading.Event(), list[str]()

    def work() -> None:
        begun.set()
        assert release.wait(60)
        done.append("to its end")

    async def scenario() -> None:
        job = asyncio.ensure_future(pool.run("a", work))
        assert await asyncio.to_thread(begun.wait, 60)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        release.set()
        await pool.run("a", lambda: None)
        assert done == ["to its end"]

    asyncio.run(scenario())


def test_failing_job_fails_alone_and_is_freed(pool: FairThreadPool) -> None:
    def fail(upload: object) -> None:
        raise ValueError(str(upload))

    class Upload:
        pass

    async def scenario() -> None:
        upload = Upload()
        alive = weakref.ref(upload)
        gc.disable()
        try:
            with pytest.raises(ValueError, match="Upload"):
                await pool.run("a", partial(fail, upload))
            del upload
            await pool.run("a", lambda: None)
            assert alive() is None
        finally:
            gc.enable()

    asyncio.run(scenario())


def test_closing_finishes_what_runs_and_cancels_what_waits(pool: FairThreadPool) -> None:
    hold = Hold(pool)
    waiting = pool.submit("a", lambda: None)
    closing = threading.Thread(target=pool.close)
    closing.start()
    release: Callable[[], None] = hold.release
    waiting.add_done_callback(lambda _: release())
    closing.join(60)
    assert waiting.cancelled()
    assert hold.future.done()
