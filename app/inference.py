"""Decoding and drawing, in small pools of threads; the model has a thread of its own, see `Batcher`.

Both are done in turns, one of each category: nobody waits behind all that somebody else has sent.
Drawing has threads of its own, or what was decided first would be told last.

A job whose request ended (the client left, the deadline passed) before a thread took it up is never computed.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from app.problems import Problem, ProblemName
from app.turns import Timed, Turns
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


class Inference:
    """The threads that decode and draw.

    Args:
        limits: bounds on the images to decode.
        decode_threads: images decoded at a time; and so many drawn.
    """

    def __init__(self, limits: images.Limits, decode_threads: int) -> None:
        self._limits = limits
        self._decoding = Turns(decode_threads, "decode")
        self._drawing = Turns(decode_threads, "draw")

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
        try:
            return await self._decoding.do(
                category, partial(_decode, data, self._limits, sample_bits, prepare, keep_pixels)
            )
        except images.ImageError as error:
            raise Problem(_PROBLEMS.get(type(error), "undecodable-image"), str(error)) from error

    async def draw(
        self, category: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> Timed[T]:
        """Run a function that makes a picture of a prediction, or another part of its answer.

        Args:
            category: whose turn it takes.
            function: what to run.
            *args: for it.
            **kwargs: for it.
        """
        return await self._drawing.do(category, partial(function, *args, **kwargs))

    def close(self) -> None:
        """Finish what runs, drop what waits, end the threads."""
        self._decoding.close()
        self._drawing.close()


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
