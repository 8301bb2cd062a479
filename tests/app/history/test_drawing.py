import asyncio
import hashlib
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from app.database import clock
from app.errors.problems import Problem
from app.history.drawing import MAX_WAITING, Drawer, DrawingSource, View
from app.history.inspection_files import InspectionFiles
from flows.fastflow.imaging.heatmap import ColourScale
from tests.app.history.rows import store_files

# Left nothing is unusual, right everything is as bad as the scale goes.
SCORES = np.tile(np.array([0, 0, 0, 2, 2, 2], np.float16), (4, 1))
COLOUR = (200, 60, 20)
BLACK, WHITE = (0, 0, 4), (252, 255, 164)  # the ends of inferno
TINTED = (231, 177, 106)  # six tenths of the bright end over the image's colour
ENDS: dict[View, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "picture": (COLOUR, COLOUR),
    "overlay": (COLOUR, TINTED),
    "heatmap": (BLACK, WHITE),
}
PATIENCE = 10  # seconds until a test gives up

pytestmark = pytest.mark.anyio


class Held(InspectionFiles):
    """Files whose reading waits for the test."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.reading = threading.Event()
        self.release = threading.Event()
        self.reads = 0

    def read_image(self, sha256: str) -> bytes | None:
        self.reads += 1
        self.reading.set()
        assert self.release.wait(PATIENCE)
        return super().read_image(sha256)


def encoded(width: int, height: int, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), COLOUR).save(file, kind)
    return file.getvalue()


def keep(files: InspectionFiles, image: bytes) -> DrawingSource:
    file = io.BytesIO()
    np.save(file, SCORES, allow_pickle=False)
    kept = DrawingSource(clock.new_id(), hashlib.sha256(image).hexdigest(), ColourScale(0.0, 1.0))
    store_files(files, kept.sha256, image, kept.identifier, file.getvalue())
    return kept


def draw(drawer: Drawer, view: View, kept: DrawingSource, side: int | None = None) -> bytes | None:
    return asyncio.run(drawer.draw(view, kept, side))


def pixels(data: bytes | None, kind: str) -> NDArray[np.uint8]:
    """Decode an image with Pillow to (H, W, 3)."""
    assert data is not None
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == kind
        return np.asarray(image.convert("RGB"))


@pytest.fixture
def held(tmp_path: Path) -> Held:
    held = Held(tmp_path)
    held.open()
    held.release.set()
    return held


@pytest.fixture
def drawer(held: Held) -> Iterator[Drawer]:
    drawer = Drawer(held)
    yield drawer
    held.release.set()
    drawer.close()


@pytest.mark.parametrize("view", ["overlay", "heatmap"])
def test_drawing_has_upload_size_and_scale_colours(drawer: Drawer, held: Held, view: View) -> None:
    drawn = pixels(draw(drawer, view, keep(held, encoded(60, 40))), "PNG")
    assert drawn.shape == (40, 60, 3)
    left, right = ENDS[view]
    assert (drawn[:, :10] == left).all()
    assert (drawn[:, -10:] == right).all()


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((60, 40), 60, (60, 40)),
        ((60, 40), 59, (59, 39)),
        ((60, 40), 30, (30, 20)),
        ((400, 1), 40, (40, 1)),  # of its shorter side a pixel stays
    ],
)
@pytest.mark.parametrize("view", get_args(View))
def test_small_view_keeps_shape_and_colours(
    drawer: Drawer, held: Held, view: View, size: tuple[int, int], side: int, expected: tuple[int, int]
) -> None:
    drawn = pixels(draw(drawer, view, keep(held, encoded(*size)), side), "JPEG")
    assert drawn.shape == (expected[1], expected[0], 3)
    # JPEG loses a little of the colours.
    for place, colour in zip((drawn[0, 0], drawn[-1, -1]), ENDS[view], strict=True):
        np.testing.assert_allclose(place.astype(float), colour, atol=6)


@pytest.mark.parametrize("kind", ["JPEG", "BMP", "TIFF", "WEBP"])
def test_upload_of_any_format_is_shown_as_jpeg(drawer: Drawer, held: Held, kind: str) -> None:
    drawn = pixels(draw(drawer, "picture", keep(held, encoded(60, 40, kind)), 1000), "JPEG")
    assert drawn.shape == (40, 60, 3)
    np.testing.assert_allclose(drawn.mean((0, 1)), COLOUR, atol=6)


@pytest.mark.parametrize("data", [b"no image", encoded(60, 40)[:-30]])
def test_undecodable_upload_is_logged_and_not_drawn(
    drawer: Drawer, held: Held, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    kept = keep(held, data)
    assert draw(drawer, "overlay", kept) is None
    assert draw(drawer, "picture", kept, 1000) is None
    line = f"the image of inspection {kept.identifier} cannot be drawn"
    assert [record.getMessage() for record in caplog.records] == [line] * 2


def test_image_is_shown_without_its_map(drawer: Drawer, held: Held) -> None:
    kept = keep(held, encoded(60, 40))
    held.map_path(kept.identifier).unlink()
    for side in (None, 1000):
        assert draw(drawer, "overlay", kept, side) is None
        assert draw(drawer, "heatmap", kept, side) is None
    assert pixels(draw(drawer, "picture", kept, 1000), "JPEG").shape == (40, 60, 3)


async def fill(drawer: Drawer, held: Held, kept: DrawingSource) -> list[asyncio.Task[bytes | None]]:
    """Request as many drawings as may wait; on return the first one is held."""
    held.release.clear()
    held.reading.clear()
    requests = [asyncio.create_task(drawer.draw("heatmap", kept)) for _ in range(MAX_WAITING)]
    assert await asyncio.to_thread(held.reading.wait, PATIENCE)
    return requests


async def refused(drawer: Drawer, kept: DrawingSource) -> None:
    with pytest.raises(Problem) as caught:
        await drawer.draw("heatmap", kept)
    assert caught.value.name == "queue-full"
    assert str(caught.value) == "32 images wait to be drawn, the limit; try again later."


async def test_drawings_beyond_the_limit_are_refused(drawer: Drawer, held: Held) -> None:
    kept = keep(held, encoded(60, 40))
    for _ in range(2):
        requests = await fill(drawer, held, kept)
        await refused(drawer, kept)  # which takes no place, and gives none away
        await refused(drawer, kept)
        held.release.set()
        assert all(await asyncio.gather(*requests))


async def test_cancelled_drawing_frees_its_place(drawer: Drawer, held: Held) -> None:
    kept = keep(held, encoded(60, 40))
    *requests, leaving = await fill(drawer, held, kept)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    requests.append(asyncio.create_task(drawer.draw("heatmap", kept)))
    await asyncio.create_task(refused(drawer, kept))
    held.release.set()
    assert all(await asyncio.gather(*requests))
    assert held.reads == MAX_WAITING
