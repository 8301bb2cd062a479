"""Clients that send images: some that wait for each answer, or requests at a rate whatever is answered."""

import asyncio
import contextlib
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.report import Figures
from bench.service.client import Answer, Connection, DisconnectedError
from tests.support.fleet import Fleet

_JPEG = {"Content-Type": "image/jpeg"}


@dataclass(frozen=True)
class Shot:
    """A request with an image of the fleet, and its answer; None if the connection was lost.

    Times are of time.monotonic(): when it was to be sent, and when there was an answer or would be none.
    """

    category: str
    picture: int
    begun: float
    ended: float
    answer: Answer | None

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.ended - self.begun

    @property
    def status(self) -> int:
        """HTTP status, or 0 without an answer."""
        return self.answer.status if self.answer else 0


def per_second(shots: Sequence[Shot]) -> float:
    """Answers per second, from the first request to the last answer."""
    if not shots:
        return 0.0
    return len(shots) / (max(shot.ended for shot in shots) - min(shot.begun for shot in shots))


def by_status(shots: Sequence[Shot]) -> Figures:
    """Number of answers of each status."""
    statuses = sorted({shot.status for shot in shots})
    return {str(status): sum(shot.status == status for shot in shots) for status in statuses}


async def shoot(
    connection: Connection, fleet: Fleet, category: str, picture: int, query: str, begun: float
) -> Shot:
    """Send an image."""
    path = f"/v1/models/{category}/predict{query}"
    answer = None
    with contextlib.suppress(DisconnectedError):  # the shot says so
        answer = await connection.request("POST", path, fleet.pictures[picture], _JPEG)
    return Shot(category, picture, begun, time.monotonic(), answer)


async def closed_loop(
    port: int,
    fleet: Fleet,
    *,
    clients: int,
    seconds: float,
    query: str = "",
    categories: Sequence[str] = (),
    every: float | None = None,
) -> list[Shot]:
    """Let clients send images one after the other for some seconds, each to a category of its own.

    Args:
        port: of the server.
        fleet: what it serves.
        clients: how many.
        seconds: after which none sends another.
        query: of the requests, such as `?store=false`.
        categories: to ask; all by default.
        every: seconds from an answer to the next request, or more where a refusal says so.
    """
    names = list(categories) or fleet.categories
    until = time.monotonic() + seconds
    shots: list[Shot] = []

    async def client(number: int) -> None:
        rng = random.Random(number)  # noqa: S311
        category = names[number % len(names)]
        async with Connection(port) as connection:
            while (begun := time.monotonic()) < until:
                picture = rng.randrange(len(fleet.pictures))
                shot = await shoot(connection, fleet, category, picture, query, begun)
                shots.append(shot)
                if every is not None:
                    told = shot.answer.headers.get("retry-after", "0") if shot.answer else "0"
                    await asyncio.sleep(max(float(told), every))

    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(client(number))
    return shots


async def open_loop(port: int, fleet: Fleet, *, rate: float, seconds: float, query: str = "") -> list[Shot]:
    """Send images at a rate per second to random categories, whether or not there are answers.

    A shot begins when its turn has come, even if this process was late to send it: otherwise a slow server
    would slow its own measurement.
    """
    rng = random.Random(0)  # noqa: S311
    idle: list[Connection] = []
    begun = time.monotonic()

    async def send(category: str, picture: int, turn: float) -> Shot:
        connection = idle.pop() if idle else Connection(port)
        shot = await shoot(connection, fleet, category, picture, query, turn)
        idle.append(connection)
        return shot

    async with asyncio.TaskGroup() as group:
        tasks = []
        for number in range(round(rate * seconds)):
            turn = begun + number / rate
            if (early := turn - time.monotonic()) > 0:
                await asyncio.sleep(early)
            category, picture = rng.choice(fleet.categories), rng.randrange(len(fleet.pictures))
            tasks.append(group.create_task(send(category, picture, turn)))
    for connection in idle:
        connection.close()
    return [task.result() for task in tasks]
