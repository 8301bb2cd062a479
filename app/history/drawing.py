"""Overlays and heatmaps of inspections that were kept, drawn when somebody looks."""

import asyncio
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Literal

from app.history.pictures import Pictures
from app.problems import Problem
from flows.fastflow import heatmap, images

logger = logging.getLogger("flowgauge.history")

Drawing = Literal["overlay", "heatmap"]

# Whoever looks at the history waits, rather than take memory and time from the line.
_MOST_WAITING: Final = 16
# What is kept was accepted once, whatever the limits are by now.
_NO_LIMITS: Final = images.Limits(sys.maxsize, sys.maxsize, sys.maxsize)


class Drawer:
    """Draws one picture at a time, in a thread of its own.

    Args:
        pictures: the files to draw from.
    """

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures
        self._thread = ThreadPoolExecutor(1, "history-drawing")
        self._waiting = 0

    async def draw(
        self, kind: Drawing, identifier: str, sha256: str, scale: heatmap.ColourScale
    ) -> bytes | None:
        """Draw a PNG of the upload's size; None where what it is drawn from is missing or damaged.

        Args:
            kind: which picture.
            identifier: of the inspection.
            sha256: of the upload's bytes.
            scale: the heatmap's colours.

        Raises:
            Problem: queue-full.
        """
        if self._waiting >= _MOST_WAITING:
            raise Problem(
                "queue-full", f"{self._waiting} pictures wait to be drawn, the limit; try again later."
            )
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._thread, self._draw, kind, identifier, sha256, scale
            )
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Finish what is being drawn, and end the thread."""
        self._thread.shutdown(cancel_futures=True)

    def _draw(self, kind: Drawing, identifier: str, sha256: str, scale: heatmap.ColourScale) -> bytes | None:
        data, scores = self._pictures.picture(sha256), self._pictures.score_map(identifier)
        if data is None or scores is None:
            return None
        try:
            image = images.decode(data, _NO_LIMITS)
        except images.ImageError:  # accepted once, by another version of the decoder
            logger.exception("the picture of inspection %s cannot be drawn", identifier)
            return None
        if kind == "overlay":
            return heatmap.encode_png(heatmap.overlay(image, scores, scale))
        return heatmap.encode_png(heatmap.colours(scores, scale, image.shape[:2]))
