import asyncio

import pytest

from app.history.filed import FiledPosition
from app.problems import Problem


def test_waiters_go_on_when_their_position_is_reached() -> None:
    async def do() -> None:
        filed = FiledPosition()
        waiting = [asyncio.create_task(filed.wait(position)) for position in (10, 20)]
        await asyncio.sleep(0)
        await asyncio.to_thread(filed.reach, 19)
        await waiting[0]
        assert not waiting[1].done()
        filed.reach(20)
        await waiting[1]
        await filed.wait(20)

    asyncio.run(do())


def test_waiting_too_long_is_a_problem() -> None:
    with pytest.raises(Problem) as caught:
        asyncio.run(FiledPosition().wait(1, seconds=0.01))
    assert caught.value.name == "history-unavailable"
