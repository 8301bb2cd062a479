"""Overlays and heatmaps of inspections that were kept, drawn when somebody looks."""

import asyncio
import json
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Literal, NamedTuple, Self

import cv2
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Row

from app.history.inspection_files import InspectionFiles
from app.scheduling.admission import Admission
from app.scheduling.concurrency_limit import ConcurrencyLimit
from flows.fastflow.config import MAX_SAMPLE_BITS
from flows.fastflow.imaging import decoder, heatmap, image_errors, image_limits, resizing

logger = logging.getLogger("flowgauge.history")

View = Literal["picture", "overlay", "heatmap"]

# Whoever looks at the history waits, rather than take memory and time from the line. A key has half of these
# places, and several screens may share one: a browser asks for six pictures at a time.
MOST_WAITING: Final = 32
# Drawn and not yet taken; beyond, nothing more is begun. More than the largest drawing that is possible by
# default has (50 megapixels of noise): one that is taken slowly must not shut all others out.
_MOST_BYTES: Final = 256 * 2**20
# What is kept was accepted once, whatever the limits are by now.
_NO_LIMITS: Final = image_limits.ImageLimits(sys.maxsize, sys.maxsize, sys.maxsize)
_JPEG_QUALITY: Final = 88


class DrawingSource(NamedTuple):
    """An inspection, by what it is drawn from.

    Attributes:
        identifier: of the inspection.
        sha256: of the upload's bytes.
        scale: the heatmap's colours.
        sample_bits: that the model expected in it, see `decoder.decode_image`.
    """

    identifier: str
    sha256: str
    scale: heatmap.ColourScale
    sample_bits: int = MAX_SAMPLE_BITS

    @classmethod
    def of(cls, row: Row[Any]) -> Self:
        """By a row of the table `inspections`."""
        sample_bits = json.loads(row.answer).get("image", {}).get("sample_bits", MAX_SAMPLE_BITS)
        return cls(row.id, row.image_sha256, heatmap.ColourScale(row.map_low, row.map_middle), sample_bits)


class Drawer:
    """Draws one image at a time, in a thread of its own.

    Args:
        pictures: the files to draw from.

    Attributes:
        unsent: the account of what was drawn and is yet to be sent; apart from the line's own.
    """

    def __init__(self, pictures: InspectionFiles) -> None:
        self.unsent = Admission(sys.maxsize, _MOST_BYTES)
        self._pictures = pictures
        self._thread = ThreadPoolExecutor(1, "history-drawing")
        self._places = ConcurrencyLimit(MOST_WAITING, "pictures wait to be drawn")

    async def draw(
        self, view: View, source: DrawingSource, side: int | None = None, key_id: str | None = None
    ) -> bytes | None:
        """Draw an image; None where what it is drawn from is missing or damaged.

        Args:
            view: which one; "picture" is the upload itself, whatever format it came in.
            source: the inspection.
            side: pixels of the longer side at most, of a JPEG for looking at, where a smaller upload keeps
                its size; None for a PNG of the upload's size.
            key_id: whose place it takes while it waits, see `ConcurrencyLimit`.

        Raises:
            Problem: queue-full.
        """
        with self._places.hold(key_id):
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, self._render, view, source, side)

    def close(self) -> None:
        """Finish what is being drawn, and end the thread."""
        self._thread.shutdown(cancel_futures=True)

    def _render(self, view: View, source: DrawingSource, side: int | None) -> bytes | None:
        image = self._decoded(source)
        if image is None:
            return None
        if side is not None and (longer := max(image.shape[:2])) > side:
            height, width = (max(1, round(n * side / longer)) for n in image.shape[:2])
            image = resizing.resize(image, (height, width), "halves-area")
        if view != "picture":
            scores = self._pictures.score_map(source.identifier)
            if scores is None:
                return None
            if view == "overlay":
                image = heatmap.render_overlay(image, scores, source.scale)
            else:
                image = heatmap.render_heatmap(scores, source.scale, image.shape[:2])
        return heatmap.encode_png(image) if side is None else _jpeg(image)

    def _decoded(self, source: DrawingSource) -> NDArray[np.uint8] | None:
        data = self._pictures.picture(source.sha256)
        if data is None:
            return None
        try:
            return decoder.decode_image(data, _NO_LIMITS, source.sample_bits)
        except image_errors.ImageError:  # accepted once, by another version of the decoder
            logger.exception("the picture of inspection %s cannot be drawn", source.identifier)
            return None


def _jpeg(rgb: NDArray[np.uint8]) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY, cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    done, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise RuntimeError(f"OpenCV could not encode a picture of shape {rgb.shape} as JPEG")
    return data.tobytes()
