"""Training: a job beside serving, by the times of both with and without each other."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from bench.interleaving import interleave
from bench.report import Figures, milliseconds
from bench.service.load import Exchange, by_status, closed_loop, open_loop
from tests.support.fleet import Fleet, jpeg, part
from tests.support.server import Server

MAX_SLOWER = 2.0  # served p95 beside a training over that without
_PRODUCT = "taught"
_WARM_UP_SECONDS = 3.0
_POLL_SECONDS = 0.5


class Product:
    """A product with good images, whose trainings run in a server."""

    def __init__(self, server: Server, images: int, size: int, epochs: int) -> None:
        self._client = server.client()
        self._epochs = epochs
        self._seed = 0
        self.threads: set[int] = set()
        self._send("POST", "/v1/products", json={"name": _PRODUCT, "takeover": "manual"})
        files = [("file", (f"{i}.jpg", jpeg(part(i, size)))) for i in range(images)]
        self._send("POST", f"/v1/products/{_PRODUCT}/images", params={"label": "good"}, files=files)

    def start(self) -> str:
        """Start a training that no other has made; return the job's id."""
        self._seed += 1
        settings = {"epochs": self._epochs, "seed": self._seed}
        body = {"kind": "train", "product": _PRODUCT, "settings": settings}
        identifier: str = self._send("POST", "/v1/jobs", json=body)["id"]
        return identifier

    def wait(self, identifier: str) -> float:
        """Wait for a job to succeed; return the seconds since its start."""
        begun = time.monotonic()
        while (job := self._send("GET", f"/v1/jobs/{identifier}"))["state"] in ("queued", "running"):
            time.sleep(_POLL_SECONDS)
        if job["state"] != "succeeded":
            raise RuntimeError(f"the training {job['state']}: {job['error']}")
        self.threads.add(job["threads"])
        return time.monotonic() - begun

    def _send(self, method: str, path: str, **arguments: Any) -> Any:
        try:
            return self._client.request(method, path, **arguments).raise_for_status().json()
        except httpx.HTTPStatusError as error:
            raise RuntimeError(f"{error}: {error.response.text}") from error


def run(
    fleet: Fleet,
    work: Path,
    *,
    rounds: int = 3,
    seconds: float = 20,
    rate: float = 4,
    images: int = 60,
    epochs: int = 10,
    job_threads: int | None = None,
) -> tuple[Figures, list[str]]:
    """Measure serving alone, a training alone and both, in turn; return figures and failures.

    Args:
        fleet: models and images.
        work: folder of the server's history and log.
        rounds: of the three.
        seconds: of serving alone.
        rate: images a second, from a line that does not wait for answers.
        images: that are trained with.
        epochs: of the training.
        job_threads: FLOWGAUGE_JOB_THREADS; None leaves the choice to the server.
    """
    setting = {} if job_threads is None else {"job_threads": job_threads}
    with Server(fleet.models, work, **setting) as server:
        product = Product(server, images, fleet.size, epochs)
        asyncio.run(closed_loop(server.port, fleet, clients=4, seconds=_WARM_UP_SECONDS))

        def serve() -> tuple[list[Exchange], float]:
            return asyncio.run(open_loop(server.port, fleet, rate=rate, seconds=seconds)), 0.0

        def train() -> tuple[list[Exchange], float]:
            return [], product.wait(product.start())

        def both() -> tuple[list[Exchange], float]:
            return asyncio.run(_serve_beside(server.port, fleet, product, rate))

        done = interleave({"serving": serve, "training": train, "both": both}, rounds)
    alone = [exchanges for exchanges, _ in done["serving"]]
    beside = [exchanges for exchanges, _ in done["both"]]
    ratios = [_p95(slow) / _p95(fast) for slow, fast in zip(beside, alone, strict=True)]
    figures = {
        "rounds": rounds,
        "images_per_second": rate,
        "job_threads": sorted(product.threads),
        "serving_alone_ms": _medians(alone),
        "serving_beside_ms": _medians(beside),
        "p95_beside_over_alone": [round(one, 2) for one in ratios],
        "training_alone_s": [round(one, 1) for _, one in done["training"]],
        "training_beside_s": [round(one, 1) for _, one in done["both"]],
        "by_status": by_status([one for exchanges in [*alone, *beside] for one in exchanges]),
    }
    return figures, find_faults(ratios, [*alone, *beside])


def find_faults(ratios: Sequence[float], rounds: Sequence[Sequence[Exchange]]) -> list[str]:
    """Find a p95 that grows too much beside a training, and requests that failed."""
    failures = []
    if median(ratios) > MAX_SLOWER:
        failures.append(f"p95 beside a training is {median(ratios):.2f} times that without")
    failed = sum(one.status != 200 for exchanges in rounds for one in exchanges)
    return [*failures, *([f"{failed} requests failed"] if failed else [])]


async def _serve_beside(
    port: int, fleet: Fleet, product: Product, rate: float
) -> tuple[list[Exchange], float]:
    """Send images until a training ends."""
    exchanges: list[Exchange] = []
    training = asyncio.create_task(asyncio.to_thread(lambda: product.wait(product.start())))
    while not training.done():
        exchanges += await open_loop(port, fleet, rate=rate, seconds=1)
    return exchanges, await training


def _p95(exchanges: Sequence[Exchange]) -> float:
    p95: float = milliseconds([one.seconds for one in exchanges])["p95"]
    return p95


def _medians(rounds: Sequence[Sequence[Exchange]]) -> Figures:
    """Return the medians over rounds of the quantiles of each."""
    quantiles = [milliseconds([one.seconds for one in exchanges]) for exchanges in rounds]
    return {name: round(median(one[name] for one in quantiles), 1) for name in ("p50", "p95")}
