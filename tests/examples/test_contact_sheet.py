"""Contact sheets: rows of input, heatmap and overlay side by side."""

import numpy as np
from numpy.typing import NDArray

from examples.contact_sheet import render_contact_sheet

RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)


def plain(colour: tuple[int, int, int], height: int, width: int) -> NDArray[np.uint8]:
    return np.full((height, width, 3), colour, dtype=np.uint8)


def box(sheet: NDArray[np.uint8], colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero((sheet == colour).all(axis=2))
    return rows.min(), rows.max() + 1, columns.min(), columns.max() + 1


def test_sheet_shows_input_heatmap_and_overlay_side_by_side() -> None:
    sheet = render_contact_sheet(
        [("a wide part", plain(RED, 50, 200), plain(GREEN, 900, 900), plain(BLUE, 2000, 1000))]
    )
    boxes = [box(sheet, colour) for colour in (RED, GREEN, BLUE)]
    sizes = [(bottom - top, right - left) for top, bottom, left, right in boxes]
    assert sizes == [(80, 320), (320, 320), (320, 160)]  # the aspect ratios are kept
    centres = [((top + bottom) // 2, (left + right) // 2) for top, bottom, left, right in boxes]
    assert len({row for row, _ in centres}) == 1
    (_, first), (_, second), (_, third) = centres
    assert second - first == third - second > 320
