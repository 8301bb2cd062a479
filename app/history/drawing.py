"""Overlays and heatmaps of stored inspections, drawn on request."""

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

# Viewers of the history wait, so that inspections keep memory and CPU. A key may hold half of these places.
# Several screens may share a key, and a browser requests six images at a time.
MAX_WAITING: Final = 32
# Bytes that are drawn and not yet sent; at the limit no new drawing starts. It exceeds the largest drawing of
# the default settings (50 megapixels of noise), so one slow reader cannot block all others.
_MAX_BYTES: Final = 256 * 2**20
# Stored uploads were accepted once; the limits may have changed since.
_NO_LIMITS: Final = image_limits.ImageLimits(sys.maxsize, sys.maxsize, sys.maxsize)
_JPEG_QUALITY: Final = 88


class DrawingSource(NamedTuple):
    """Inputs for drawing a stored inspection.

    Attributes:
        identifier: of the inspection.
        sha256: of the upload's bytes.
        scale: the heatmap's colours.
        sample_bits: bits that the model expected per sample, see `decoder.decode_image`.
    """

    identifier: str
    sha256: str
    scale: heatmap.ColourScale
    sample_bits: int = MAX_SAMPLE_BITS

    @classmethod
    def of(cls, row: Row[Any]) -> Self:
        sample_bits = json.loads(row.answer).get("image", {}).get("sample_bits", MAX_SAMPLE_BITS)
        return cls(row.id, row.image_sha256, heatmap.ColourScale(row.map_low, row.map_middle), sample_bits)


class Drawer:
    """Draws one image at a time, in a thread of its own.

    Attributes:
        unsent: account of drawings that are not sent yet, separate from that of inspections.
    """

    def __init__(self, files: InspectionFiles) -> None:
        self.unsent = Admission(sys.maxsize, _MAX_BYTES)
        self._files = files
        self._thread = ThreadPoolExecutor(1, "history-drawing")
        self._places = ConcurrencyLimit(MAX_WAITING, "images wait to be drawn")

    async def draw(
        self, view: View, source: DrawingSource, side: int | None = None, key_id: str | None = None
    ) -> bytes | None:
        """Draw an image; None if its files are missing or damaged.

        Args:
            view: the drawing; "picture" is the upload itself, in any format.
            source: the inspection.
            side: maximal pixels of the longer side of a JPEG; smaller uploads keep their size. None for a PNG
                of the upload's size.
            key_id: key that holds a place while the drawing waits, see `ConcurrencyLimit`.

        Raises:
            Problem: queue-full.
        """
        with self._places.hold(key_id):
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, self._render, view, source, side)

    def close(self) -> None:
        """Finish the running drawing and end the thread."""
        self._thread.shutdown(cancel_futures=True)

    def _render(self, view: View, source: DrawingSource, side: int | None) -> bytes | None:
        image = self._decoded(source)
        if image is None:
            return None
        if side is not None:
            image = shrink(image, side)
        if view != "picture":
            scores = self._files.read_score_map(source.identifier)
            if scores is None:
                return None
            if view == "overlay":
                image = heatmap.render_overlay(image, scores, source.scale)
            else:
                image = heatmap.render_heatmap(scores, source.scale, image.shape[:2])
        return heatmap.encode_png(image) if side is None else encode_jpeg(image)

    def _decoded(self, source: DrawingSource) -> NDArray[np.uint8] | None:
        data = self._files.read_image(source.sha256)
        if data is None:
            return None
        try:
            return decoder.decode_image(data, _NO_LIMITS, source.sample_bits)
        except image_errors.ImageError:  # another version of the decoder accepted it
            logger.exception("the image of inspection %s cannot be drawn", source.identifier)
            return None


def shrink(rgb: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Resize an image so that its longer side has at most `side` pixels."""
    if (longer := max(rgb.shape[:2])) <= side:
        return rgb
    height, width = (max(1, round(n * side / longer)) for n in rgb.shape[:2])
    return resizing.resize(rgb, (height, width), "halves-area")


def encode_jpeg(rgb: NDArray[np.uint8]) -> bytes:
    """Encode an image as a progressive JPEG."""
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY, cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    done, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise RuntimeError(f"OpenCV could not encode an image of shape {rgb.shape} as JPEG")
    return data.tobytes()
