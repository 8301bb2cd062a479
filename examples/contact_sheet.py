"""Contact sheet: input, heatmap and overlay of several images side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from flows.fastflow.imaging.heatmap import require_rgb
from flows.fastflow.imaging.resizing import resize

_CELL, _GAP, _MARGIN, _LINE = 320, 8, 16, 30  # pixels of the contact sheet
_PAPER, _FRAME, _INK = (255, 255, 255), (236, 236, 236), (32, 32, 32)
_COLUMNS = ("input", "heatmap", "overlay")


def render_contact_sheet(
    rows: Sequence[tuple[str, NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]],
) -> NDArray[np.uint8]:
    """Draw a figure with a row for each (caption, image, heatmap, overlay), under named columns.

    The images are RGB of any size and keep their aspect ratios. A caption stands above its row and is
    shortened if it is wider than the sheet.

    Raises:
        ValueError: there are no rows, or an image is not RGB.
    """
    if not rows:
        raise ValueError("a contact sheet needs at least one row")
    columns, step = len(_COLUMNS), _LINE + _CELL + _GAP
    width = 2 * _MARGIN + columns * _CELL + (columns - 1) * _GAP
    sheet = Image.new("RGB", (width, 2 * _MARGIN + _LINE + len(rows) * step), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=18)
    lefts = [_MARGIN + column * (_CELL + _GAP) for column in range(columns)]
    for left, name in zip(lefts, _COLUMNS, strict=True):
        draw.text((left + _CELL // 2, _MARGIN + _LINE // 2), name, _INK, font, anchor="mm")
    for number, (caption, *images) in enumerate(rows):
        top = _MARGIN + _LINE + number * step
        text = _shortened(caption, font, width - 2 * _MARGIN)
        draw.text((_MARGIN, top + _LINE // 2), text, _INK, font, anchor="lm")
        for left, image in zip(lefts, images, strict=True):
            sheet.paste(Image.fromarray(_letterboxed(image)), (left, top + _LINE))
    return np.array(sheet)


def _letterboxed(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    require_rgb(image)
    height, width = image.shape[:2]
    fit = _CELL / max(height, width)
    inner = resize(image, (max(1, round(fit * height)), max(1, round(fit * width))))
    cell = np.full((_CELL, _CELL, 3), _FRAME, dtype=np.uint8)
    top, left = (_CELL - inner.shape[0]) // 2, (_CELL - inner.shape[1]) // 2
    cell[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return cell


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
