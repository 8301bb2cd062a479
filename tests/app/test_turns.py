import asyncio
import threading
import weakref
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest

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
