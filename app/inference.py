"""Decoding and drawing, in small pools of threads; the model has a thread of its own, see `Batcher`.

Pictures are decoded in turns, one of each category: nobody waits behind all that somebody else has sent.
Drawing has threads of its own, or what was decided first would be told last.

The event loop only waits. A job whose request ended (the client left, the deadline passed) before a
thread took it up is never computed; a job that fails fails alone.
"""

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray
from starlette.requests import ClientDisconnect, Request

from app.fair_queue import FairQueue, Lane
from app.problems import Problem, ProblemName
from flows.fastflow import images
from flows.fastflow.geometry import Prepared

P = ParamSpec("P")
T = TypeVar("T")
Pixels = NDArray[np.uint8]

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
    """An upload, decoded.

    Attributes:
        size: (height, width) in pixels, after its EXIF orientation was applied.
        prepared: the picture as the model takes it.
        pixels: RGB (height, width, 3), if they were to be kept.
        sha256: of the upload's bytes.
    """

    size: tuple[int, int]
    prepared: Prepared
    pixels: Pixels | None
    sha256: str

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.prepared.nbytes + (0 if self.pixels is None else self.pixels.nbytes)


_Job = tuple["Future[Any]", Callable[[], Any]]


class Inference:
    """The threads that decode and draw.

    Args:
        limits: bounds on the images to decode.
        decode_threads: images decoded at a time; and so many drawn.
    """

    def __init__(self, limits: images.Limits, decode_threads: int) -> None:
        self._limits = limits
        self._decoding = ThreadPoolExecutor(decode_threads, "decode")
        self._drawing = ThreadPoolExecutor(decode_threads, "draw")
        self._lock = threading.Lock()  # guards what follows
        self._waiting: FairQueue[_Job] = FairQueue()

    async def decode(
        self,
        category: str,
        data: bytes,
        prepare: Callable[[Pixels], Prepared],
        sample_bits: int = images.MAX_SAMPLE_BITS,
        *,
        keep_pixels: bool = False,
    ) -> Timed[Decoded]:
        """Decode an upload and prepare it for a model.

        Args:
            category: whose turn it takes.
            data: the upload's bytes.
            prepare: brings the pixels to where the model takes them from, such as `Detector.prepare`.
            sample_bits: that the model expects, see `images.decode`.
            keep_pixels: whether they are needed after that, for an overlay.

        Raises:
            Problem: too-large, unsupported-media-type or undecodable-image, in the decoder's words.
        """
        job = _timed(partial(_decode, data, self._limits, sample_bits, prepare, keep_pixels))
        future: Future[Timed[Decoded]] = Future()
        with self._lock:
            self._waiting.put(Lane(category, None), (future, job))
        # A thread takes the job whose turn it is, which may be another one.
        self._decoding.submit(self._decode_next)
        try:
            return await asyncio.wrap_future(future)
        except images.ImageError as error:
            raise Problem(_PROBLEMS.get(type(error), "undecodable-image"), str(error)) from error

    async def draw(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Timed[T]:
        """Run a function that makes a picture of a prediction."""
        job = _timed(partial(function, *args, **kwargs))
        # Cancelling this await takes the job off the executor's queue if it has not begun.
        return await asyncio.get_running_loop().run_in_executor(self._drawing, job)

    def close(self) -> None:
        """Finish what runs, drop what waits, end the threads."""
        with self._lock:
            waiting = self._waiting.clear()
        for future, _ in waiting:
            future.cancel()
        for pool in (self._decoding, self._drawing):
            pool.shutdown(cancel_futures=True)

    def _decode_next(self) -> None:
        """Do the job whose turn it is, past those that nobody waits for any more."""
        while True:
            taken: list[_Job] = []
            with self._lock:
                self._waiting.take(1, taken)
            if not taken:
                return
            [(future, job)] = taken
            if future.set_running_or_notify_cancel():
                break
        try:
            future.set_result(job())
        except BaseException as error:
            future.set_exception(error)


def _decode(
    data: bytes,
    limits: images.Limits,
    sample_bits: int,
    prepare: Callable[[Pixels], Prepared],
    keep_pixels: bool,
) -> Decoded:
    pixels = images.decode(data, limits, sample_bits)
    height, width, _ = pixels.shape
    sha256 = hashlib.sha256(data).hexdigest()
    return Decoded((height, width), prepare(pixels), pixels if keep_pixels else None, sha256)


def _timed(function: Callable[[], T]) -> Callable[[], Timed[T]]:
    submitted = time.perf_counter()

    def job() -> Timed[T]:
        start = time.perf_counter()
        value = function()
        return Timed(value, start - submitted, time.perf_counter() - start)

    return job


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
