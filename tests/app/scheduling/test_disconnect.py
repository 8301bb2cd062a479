import asyncio

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from app.errors.problems import Problem
from app.scheduling.disconnect import cancel_on_disconnect

pytestmark = pytest.mark.anyio


def request_of(left: asyncio.Event) -> Request:
    async def receive() -> Message:
        await left.wait()
        return {"type": "http.disconnect"}

    return Request({"type": "http", "headers": []}, receive)


async def test_result_and_error_are_passed_on() -> None:
    async def work(error: Exception | None) -> int:
        await asyncio.sleep(0)
        if error is not None:
            raise error
        return 7

    request = request_of(asyncio.Event())
    assert await cancel_on_disconnect(request, work(None)) == 7
    with pytest.raises(Problem, match="full"):
        await cancel_on_disconnect(request, work(Problem("queue-full", "full")))


@pytest.mark.parametrize("client_leaves", [True, False])
async def test_work_is_cancelled_with_client_or_caller(client_leaves: bool) -> None:
    begun, cancelled, left = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    call = asyncio.create_task(cancel_on_disconnect(request_of(left), work()))
    await begun.wait()
    if client_leaves:
        left.set()
    else:
        call.cancel()
    with pytest.raises(ClientDisconnect if client_leaves else asyncio.CancelledError):
        await call
    await asyncio.wait_for(cancelled.wait(), 30)
