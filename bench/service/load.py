"""Clients that send pictures: some that wait for each answer, or requests at a rate whatever is answered."""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from bench.service.client import Answer, Connection, DisconnectedError, Pool
from bench.service.fleet import Fleet

_JPEG = {"Content-Type": "image/jpeg"}


@dataclass(frozen=True)
class Shot:
    """A request and what came of it.

    Attributes:
        category: whose model was asked.
        picture: index into the fleet's pictures.
        begun: time.monotonic() when it was to be sent.
        ended: time.monotonic() when there was an answer, or none would come.
        answer: None if the connection was lost.
    """

    category: str
    picture: int
    begun: float
    ended: float
    answer: Answer | None

    @property
    def seconds(self) -> float:
        """From the one to the other."""
        return self.ended - self.begun

    @property
    def status(self) -> int:
        """HTTP status, or 0 where there was no answer."""
        return self.answer.status if self.answer else 0


def per_second(shots: Sequence[Shot]) -> float:
    """Answers a second, from the first request to the last answer, when none is sent any more."""
    if not shots:
        return 0.0
    return len(shots) / (max(shot.ended for shot in shots) - min(shot.begun for shot in shots))


async def shoot(
    send: Callable[[str, str, bytes, dict[str, str]], Awaitable[Answer]],
    fleet: Fleet,
    category: str,
    picture: int,
    query: str,
    begun: float,
) -> Shot:
    """Send a picture, by `Connection.request` or `Pool.request`."""
    path = f"/v1/models/{category}/predict{query}"
    answer = None
    with contextlib.suppress(DisconnectedError):  # the shot says so
        answer = await send("POST", path, fleet.pictures[picture], _JPEG)
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
    """Let clients send pictures one after the other, each to a category of its own.

    Args:
        port: of the server.
        fleet: what it serves.
        clients: how many.
        seconds: after which none sends another.
        query: of the requests, such as `?store=false`.
        categories: to ask; all by default.
        every: seconds from an answer to the next picture, or as many as a refusal tells to wait, if these are
            more. By default none, whatever it tells.
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
                shot = await shoot(connection.request, fleet, category, picture, query, begun)
                shots.append(shot)
                if every is not None:
                    told = shot.answer.headers.get("retry-after", "0") if shot.answer else "0"
                    await asyncio.sleep(max(float(told), every))

    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(client(number))
    return shots


async def open_loop(port: int, fleet: Fleet, *, rate: float, seconds: float, query: str = "") -> list[Shot]:
    """Send pictures at a rate, in categories by chance, whether or not there are answers.

    A shot begins when its turn has come, even if this process was late to send it: otherwise a slow server
    would slow its own measurement.

    Args:
        port: of the server.
        fleet: what it serves.
        rate: requests a second.
        seconds: for how long.
        query: of the requests.
    """
    rng = random.Random(0)  # noqa: S311
    pool = Pool(port)
    begun = time.monotonic()
    async with asyncio.TaskGroup() as group:
        tasks = []
        for number in range(round(rate * seconds)):
            turn = begun + number / rate
            if (early := turn - time.monotonic()) > 0:
                await asyncio.sleep(early)
            category, picture = rng.choice(fleet.categories), rng.randrange(len(fleet.pictures))
            tasks.append(group.create_task(shoot(pool.request, fleet, category, picture, query, turn)))
    pool.close()
    return [task.result() for task in tasks]
