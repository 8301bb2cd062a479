import asyncio
from collections.abc import Awaitable, Callable

import pytest

from app.history.settling import Settling
from app.problems import Problem


async def is_settled(settling: Settling, name: str) -> bool:
    try:
        await settling.wait(name, 0)
    except Problem as problem:
        assert problem.name == "history-unavailable"  # noqa: PT017
        return False
    return True


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def do() -> None:
        await asyncio.wait_for(work(), 30)

    asyncio.run(do())


def test_what_nobody_has_heard_of_has_settled() -> None:
    async def work() -> None:
        settling = Settling(0)
        settling.arrive(["a"])
        assert await is_settled(settling, "b")

    run(work)


def test_what_arrives_settles_when_it_is_in_the_database() -> None:
    async def work() -> None:
        settling = Settling(0)
        number = settling.arrive(["a", "part"])
        assert not await is_settled(settling, "a")
        settling.appended(number, 100)
        assert not await is_settled(settling, "a")
        settling.reach(99)
        assert not await is_settled(settling, "part")
        settling.reach(100)
        assert await is_settled(settling, "a")
        assert await is_settled(settling, "part")

    run(work)


def test_what_is_filed_before_the_journal_has_said_so_has_settled() -> None:
    async def work() -> None:
        settling = Settling(0)
        number = settling.arrive(["a"])
        waiting = asyncio.create_task(settling.wait("a"))
        await asyncio.sleep(0)
        settling.reach(100)
        assert not await is_settled(settling, "a")
        settling.appended(number, 100)
        await waiting

    run(work)


def test_what_is_not_kept_has_settled() -> None:
    async def work() -> None:
        settling = Settling(0)
        number = settling.arrive(["a"])
        waiting = asyncio.create_task(settling.wait("a"))
        await asyncio.sleep(0)
        settling.forget(number)
        await waiting
        assert await is_settled(settling, "a")
        settling.forget(number)  # as often as one likes

    run(work)


def test_a_name_settles_with_the_last_that_came_under_it() -> None:
    async def work() -> None:
        settling = Settling(0)
        first, second, third = (settling.arrive(["part", number]) for number in range(3))
        settling.appended(first, 10)
        settling.appended(second, 20)
        settling.reach(20)
        assert await is_settled(settling, "part") is False
        assert await asyncio.gather(*(is_settled(settling, n) for n in range(3))) == [True, True, False]  # type: ignore[arg-type]
        settling.forget(third)
        assert await is_settled(settling, "part")

    run(work)


def test_one_that_is_not_kept_does_not_settle_those_before_it() -> None:
    async def work() -> None:
        settling = Settling(0)
        first, second = settling.arrive(["part"]), settling.arrive(["part"])
        settling.forget(second)
        assert not await is_settled(settling, "part")
        settling.appended(first, 10)
        settling.reach(10)
        assert await is_settled(settling, "part")

    run(work)


def test_what_an_earlier_process_has_left_may_be_under_any_name() -> None:
    async def work() -> None:
        settling = Settling(500)
        assert not await is_settled(settling, "anything")
        number = settling.arrive(["a"])
        settling.appended(number, 600)
        settling.reach(500)
        assert await is_settled(settling, "anything")
        assert not await is_settled(settling, "a")

    run(work)


def test_nothing_is_remembered_of_what_has_settled() -> None:
    async def work() -> None:
        settling = Settling(10)
        for position in range(20, 220, 10):
            settling.appended(settling.arrive(["the same", position]), position)
        settling.forget(settling.arrive(["not kept"]))
        with pytest.raises(Problem):
            await settling.wait("the same", 0)
        settling.reach(210)
        assert (len(settling._open), len(settling._pending), settling._waiting) == (0, 0, {})

    run(work)


def test_a_name_that_comes_again_and_again_does_not_keep_others() -> None:
    settling = Settling(0)
    for position, name in enumerate(["the same", "another", "the same"], 1):
        number = settling.arrive([name])
        if position < 3:
            settling.appended(number, position)
    settling.reach(2)
    assert list(settling._pending) == ["the same"]


def test_nothing_is_remembered_of_who_no_longer_waits() -> None:
    """While the database is away for hours, clients ask again and again."""

    async def work() -> None:
        settling = Settling(0)
        settling.arrive(["a"])
        with pytest.raises(Problem):
            await settling.wait("a", 0)
        leaving = asyncio.create_task(settling.wait("a"))
        await asyncio.sleep(0)
        assert len(settling._waiting) == 1
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert not settling._waiting

    run(work)


def test_who_no_longer_waits_is_passed_over() -> None:
    async def work() -> None:
        settling = Settling(0)
        number = settling.arrive(["a"])
        leaving, staying = (asyncio.create_task(settling.wait("a")) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        settling.appended(number, 10)
        settling.reach(10)
        await staying
        with pytest.raises(asyncio.CancelledError):
            await leaving

    run(work)
