import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial

import numpy as np
import pytest

from app.scheduling.thread_pool import FairThreadPool, TimedResult

pytestmark = pytest.mark.anyio


@pytest.fixture
def pool() -> Iterator[FairThreadPool]:
    pool = FairThreadPool(1, "tested")
    yield pool
    pool.close()


class Hold:
    """A job that holds the pool's only thread until it is released."""

    def __init__(self) -> None:
        self._begun, self._release = threading.Event(), threading.Event()

    async def begin(self, pool: FairThreadPool) -> "asyncio.Future[TimedResult[None]]":
        task = asyncio.ensure_future(pool.run("held", self._run))
        assert await asyncio.to_thread(self._begun.wait, 60)
        return task

    def _run(self) -> None:
        self._begun.set()
        assert self._release.wait(60)

    def release(self) -> None:
        self._release.set()


@asynccontextmanager
async def held(pool: FairThreadPool) -> AsyncIterator[Hold]:
    """Hold the pool's thread within the block, or until it is released."""
    hold = Hold()
    running = await hold.begin(pool)
    yield hold
    hold.release()
    await running


async def test_categories_take_turns_and_wait_is_timed(pool: FairThreadPool) -> None:
    async with held(pool) as hold:
        done = list[str]()
        names = ["big", "big", "big", "small"]
        jobs = [asyncio.ensure_future(pool.run(name, partial(done.append, name))) for name in names]
        await asyncio.sleep(0)
        hold.release()
        timed = await asyncio.gather(*jobs)
        assert done[:2] == ["big", "small"]
        assert all(one.waited > one.took >= 0 for one in timed)


async def test_cancelled_jobs_are_never_run_and_freed(pool: FairThreadPool) -> None:
    """Otherwise uncounted uploads of departed clients would fill the memory."""
    async with held(pool) as hold:
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


async def test_failing_job_fails_alone_and_is_freed(pool: FairThreadPool) -> None:
    def fail(upload: object) -> None:
        raise ValueError(str(upload))

    class Upload:
        pass

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


async def test_close_finishes_running_jobs(pool: FairThreadPool) -> None:
    async with held(pool) as hold:
        closing = asyncio.ensure_future(asyncio.to_thread(pool.close))
        await asyncio.sleep(0)
        assert not closing.done()
        hold.release()
        await closing
