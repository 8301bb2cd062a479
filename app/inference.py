"""Where the work is done: decoding and drawing in a small pool, the model in one thread of its own.

The event loop only waits. A job whose request ended (the client left, the deadline passed) before a
thread took it up is never computed; a job that fails fails alone.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray
from starlette.requests import ClientDisconnect, Request

from app.problems import Problem, ProblemName
from flows.fastflow import images
from flows.fastflow.detector import Detector, Prediction

P = ParamSpec("P")
T = TypeVar("T")

_PROBLEMS: dict[type[images.ImageError], ProblemName] = {
    images.TooLarge: "too-large",
    images.UnsupportedFormat: "unsupported-media-type",
    images.Undecodable: "undecodable-image",
}


@dataclass(frozen=True)
class Timed(Generic[T]):
    """A result, the seconds until a thread took the job up, and the seconds it took there."""

    value: T
    waited: float
    took: float


@dataclass(frozen=True)
class Decoded:
    """An upload's pixels, RGB (H, W, 3), and the sha256 of its bytes."""

    pixels: NDArray[np.uint8]
    sha256: str


class Inference:
    """The threads of the service.

    Args:
        limits: bounds on the images to decode.
        decode_threads: images decoded or drawn at a time.
    """

    def __init__(self, limits: images.Limits, decode_threads: int) -> None:
        self._limits = limits
        self._pool = ThreadPoolExecutor(decode_threads, "decode")
        # One thread, because a detector is to be called from one at a time and torch uses all cores
        # for it.
        self._model_thread = ThreadPoolExecutor(1, "inference")

    async def decode(self, data: bytes) -> Timed[Decoded]:
        """Decode an upload.

        Raises:
            Problem: too-large, unsupported-media-type or undecodable-image, in the decoder's words.
        """
        try:
            return await _run(self._pool, _decode, data, self._limits)
        except images.ImageError as error:
            raise Problem(_PROBLEMS.get(type(error), "undecodable-image"), str(error)) from error

    async def predict(self, detector: Detector, image: NDArray[np.uint8]) -> Timed[Prediction]:
        """Inspect one image."""
        timed = await _run(self._model_thread, detector.predict, [image])
        return Timed(timed.value[0], timed.waited, timed.took)

    async def draw(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Timed[T]:
        """Run a function that makes a picture of a prediction."""
        return await _run(self._pool, function, *args, **kwargs)

    def close(self) -> None:
        """Finish what runs, drop what waits, end the threads."""
        for executor in (self._pool, self._model_thread):
            executor.shutdown(cancel_futures=True)


def _decode(data: bytes, limits: images.Limits) -> Decoded:
    return Decoded(images.decode(data, limits), hashlib.sha256(data).hexdigest())


async def _run(
    executor: ThreadPoolExecutor, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> Timed[T]:
    submitted = time.perf_counter()

    def job() -> Timed[T]:
        start = time.perf_counter()
        value = function(*args, **kwargs)
        return Timed(value, start - submitted, time.perf_counter() - start)

    # Cancelling this await takes the job off the executor's queue if it has not begun.
    return await asyncio.get_running_loop().run_in_executor(executor, job)


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do work for a request whose body has been read; drop it when the client leaves or this is cancelled.

    Raises:
        ClientDisconnect: the client left first.
    """
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
