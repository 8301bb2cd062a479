"""Load of images: a closed loop of waiting clients, and an open loop at a fixed rate."""

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.report import Figures
from bench.service.client import Connection, DisconnectedError, Response
from tests.support.fleet import Fleet


@dataclass(frozen=True)
class Exchange:
    """A request with an image of the fleet, and its response.

    Attributes:
        category: that was asked.
        image: index into the fleet's images.
        begun: when it was due to be sent, time.monotonic().
        ended: when the response was complete or the connection lost.
        response: None if the connection was lost.
    """

    category: str
    image: int
    begun: float
    ended: float
    response: Response | None

    @property
    def seconds(self) -> float:
        return self.ended - self.begun

    @property
    def status(self) -> int:
        """HTTP status, or 0 without a response."""
        return self.response.status if self.response else 0


def per_second(exchanges: Sequence[Exchange]) -> float:
    """Return the responses per second, from the first request to the last response."""
    if not exchanges:
        return 0.0
    return len(exchanges) / (max(one.ended for one in exchanges) - min(one.begun for one in exchanges))


def by_status(exchanges: Sequence[Exchange]) -> Figures:
    """Count the exchanges by HTTP status."""
    statuses = sorted({one.status for one in exchanges})
    return {str(status): sum(one.status == status for one in exchanges) for status in statuses}


async def send_image(
    connection: Connection, fleet: Fleet, category: str, image: int, query: str, begun: float, key: str = ""
) -> Exchange:
    """Send an image of the fleet for inspection."""
    path = f"/v1/models/{category}/predict{query}"
    headers = {"Content-Type": "image/jpeg"} | ({"X-API-Key": key} if key else {})
    response = None
    with contextlib.suppress(DisconnectedError):  # recorded as a missing response
        response = await connection.request("POST", path, fleet.images[image], headers)
    return Exchange(category, image, begun, time.monotonic(), response)


async def closed_loop(
    port: int,
    fleet: Fleet,
    *,
    clients: int,
    seconds: float,
    query: str = "",
    categories: Sequence[str] = (),
    every: float | None = None,
    key: str = "",
) -> list[Exchange]:
    """Let clients send images one after the other, each client to one category.

    Args:
        port: of the server.
        fleet: models and images.
        clients: number of clients.
        seconds: after which no client sends another image.
        query: of the requests, such as `?store=false`.
        categories: to ask; all by default.
        every: seconds from a response to the next request, or Retry-After if that is longer.
        key: of a server that asks for one.
    """
    names = list(categories) or fleet.categories
    until = time.monotonic() + seconds
    exchanges: list[Exchange] = []

    async def client(number: int) -> None:
        rng = random.Random(number)  # noqa: S311
        category = names[number % len(names)]
        async with Connection(port) as connection:
            while (begun := time.monotonic()) < until:
                image = rng.randrange(len(fleet.images))
                exchange = await send_image(connection, fleet, category, image, query, begun, key)
                exchanges.append(exchange)
                if every is not None:
                    response = exchange.response
                    retry_after = response.headers.get("retry-after", "0") if response else "0"
                    await asyncio.sleep(max(float(retry_after), every))

    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(client(number))
    return exchanges


async def open_loop(
    port: int,
    fleet: Fleet,
    *,
    rate: float,
    seconds: float,
    query: str = "",
    poisson: bool = False,
    seed: int = 0,
) -> list[Exchange]:
    """Send images at a rate per second to random categories, without waiting for responses.

    An exchange begins when it is due, even if this process sends it late. Otherwise a slow server would slow
    its own measurement.

    Args:
        poisson: send at random times, not at equal distances.
    """
    rng = random.Random(seed)  # noqa: S311
    offsets: Iterable[float] = (number / rate for number in range(round(rate * seconds)))
    if poisson:
        gaps = (rng.expovariate(rate) for _ in itertools.count())
        offsets = itertools.takewhile(lambda offset: offset < seconds, itertools.accumulate(gaps))
    idle: list[Connection] = []
    begun = time.monotonic()

    async def send(category: str, image: int, due: float) -> Exchange:
        connection = idle.pop() if idle else Connection(port)
        exchange = await send_image(connection, fleet, category, image, query, due)
        idle.append(connection)
        return exchange

    async with asyncio.TaskGroup() as group:
        tasks = []
        for offset in offsets:
            due = begun + offset
            await asyncio.sleep(max(due - time.monotonic(), 0))
            category, image = rng.choice(fleet.categories), rng.randrange(len(fleet.images))
            tasks.append(group.create_task(send(category, image, due)))
    for connection in idle:
        connection.close()
    return [task.result() for task in tasks]
