"""Pictures of kept inspections: their sizes and colours, what cannot be drawn, and how many may wait."""

import asyncio
import hashlib
import io
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from app.database import clock
from app.history.drawing import Drawer, Drawing, Source, View
from app.history.pictures import Pictures
from app.problems import Problem
from flows.fastflow.heatmap import ColourScale

SCALE = ColourScale(0.0, 1.0)
# Left nothing is unusual, right everything is as bad as the scale goes.
SCORES = np.tile(np.array([0, 0, 0, 2, 2, 2], np.float16), (4, 1))
COLOUR = (200, 60, 20)
BLACK, WHITE = (0, 0, 4), (252, 255, 164)  # the ends of inferno
TINTED = (231, 177, 106)  # six tenths of the bright end over the picture's colour
PATIENCE = 10  # seconds until a test gives up
MOST = 32

Colour = tuple[int, int, int]
Read = Callable[[bytes], NDArray[np.uint8]]


class Held(Pictures):
    """Pictures that are read when the test lets go of them."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.reading = threading.Event()
        self.let_go = threading.Event()
        self.readers: list[threading.Thread] = []

    def picture(self, sha256: str) -> bytes | None:
        self.readers.append(threading.current_thread())
        self.reading.set()
        assert self.let_go.wait(PATIENCE)
        return super().picture(sha256)


def encoded(width: int, height: int, kind: str = "PNG") -> bytes:
    """A picture of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), COLOUR).save(file, kind)
    return file.getvalue()


def keep(pictures: Pictures, picture: bytes, scores: NDArray[np.float16] = SCORES) -> Source:
    file = io.BytesIO()
    np.save(file, scores, allow_pickle=False)
    kept = Source(clock.new_id(), hashlib.sha256(picture).hexdigest())
    pictures.store(kept.sha256, picture, kept.identifier, file.getvalue())
    return kept


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 2 * PATIENCE))


def draw(drawer: Drawer, kind: Drawing, kept: Source) -> bytes | None:
    return asyncio.run(drawer.draw(kind, kept, SCALE))


def view(drawer: Drawer, kind: View, kept: Source, side: int = 1000) -> bytes | None:
    return asyncio.run(drawer.view(kind, kept, SCALE, side))


def read_jpeg(data: bytes | None) -> NDArray[np.uint8]:
    """Its pixels, (H, W, 3), by Pillow."""
    assert data is not None
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "JPEG"
        return np.asarray(image.convert("RGB"))


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    pictures = Pictures(tmp_path)
    pictures.open()
    return pictures


@pytest.fixture
def drawer(pictures: Pictures) -> Iterator[Drawer]:
    drawer = Drawer(pictures)
    yield drawer
    drawer.close()


@pytest.fixture
def held(tmp_path: Path) -> Held:
    held = Held(tmp_path)
    held.open()
    return held


@pytest.fixture
def waiting(held: Held) -> Iterator[Drawer]:
    """A drawer that waits until it may read."""
    drawer = Drawer(held)
    yield drawer
    held.let_go.set()
    drawer.close()


def test_an_overlay_has_the_uploads_size_and_colours_only_where_it_is_hot(
    drawer: Drawer, pictures: Pictures, read_png: Read
) -> None:
    data = draw(drawer, "overlay", keep(pictures, encoded(60, 40)))
    assert data is not None
    drawn = read_png(data)
    assert drawn.shape == (40, 60, 3)
    assert (drawn[:, :10] == COLOUR).all()
    assert (drawn[:, -10:] == TINTED).all()


def test_a_heatmap_has_the_uploads_size_and_the_colours_of_the_scale(
    drawer: Drawer, pictures: Pictures, read_png: Read
) -> None:
    data = draw(drawer, "heatmap", keep(pictures, encoded(60, 40)))
    assert data is not None
    drawn = read_png(data)
    assert drawn.shape == (40, 60, 3)
    assert (drawn[:, :10] == BLACK).all()
    assert (drawn[:, -10:] == WHITE).all()


@pytest.mark.parametrize(
    ("size", "side", "wanted"),
    [
        ((60, 40), 59, (59, 39)),
        ((60, 40), 30, (30, 20)),
        ((400, 1), 40, (40, 1)),  # of its shorter side a pixel stays
    ],
)
@pytest.mark.parametrize("kind", get_args(View))
def test_a_larger_picture_is_made_smaller_in_its_shape(
    drawer: Drawer,
    pictures: Pictures,
    kind: View,
    size: tuple[int, int],
    side: int,
    wanted: tuple[int, int],
) -> None:
    width, height = wanted
    drawn = read_jpeg(view(drawer, kind, keep(pictures, encoded(*size)), side))
    assert drawn.shape == (height, width, 3)


@pytest.mark.parametrize("side", [30, 60])
def test_a_view_has_the_colours_of_what_it_shows(drawer: Drawer, pictures: Pictures, side: int) -> None:
    """JPEG loses a little of them."""
    kept = keep(pictures, encoded(60, 40))
    ends: dict[View, tuple[Colour, Colour]] = {
        "picture": (COLOUR, COLOUR),
        "overlay": (COLOUR, TINTED),
        "heatmap": (BLACK, WHITE),
    }
    for kind, (left, right) in ends.items():
        drawn = read_jpeg(view(drawer, kind, kept, side)).astype(float)
        np.testing.assert_allclose(drawn[0, 0], left, atol=6)
        np.testing.assert_allclose(drawn[-1, -1], right, atol=6)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
def test_a_picture_of_any_format_is_looked_at_as_jpeg(drawer: Drawer, pictures: Pictures, kind: str) -> None:
    drawn = read_jpeg(view(drawer, "picture", keep(pictures, encoded(60, 40, kind))))
    assert drawn.shape == (40, 60, 3)
    np.testing.assert_allclose(drawn.mean((0, 1)), COLOUR, atol=6)


def nothing_is_drawn(drawer: Drawer, kept: Source) -> bool:
    drawn = [draw(drawer, kind, kept) for kind in get_args(Drawing)]
    looked_at = [view(drawer, kind, kept) for kind in get_args(View)]
    return all(one is None for one in drawn + looked_at)


@pytest.mark.parametrize("data", [b"no picture", encoded(60, 40)[:-30]])
def test_what_is_no_picture_to_this_decoder_is_not_drawn_and_logged(
    drawer: Drawer, pictures: Pictures, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Its bytes are those that were accepted once."""
    kept = keep(pictures, data)
    assert nothing_is_drawn(drawer, kept)
    line = f"the picture of inspection {kept.identifier} cannot be drawn"
    assert [record.getMessage() for record in caplog.records] == [line] * 5


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_without_a_map_the_picture_alone_is_shown(drawer: Drawer, pictures: Pictures, damage: str) -> None:
    kept = keep(pictures, encoded(60, 40))
    path = pictures.map_path(kept.identifier)
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    assert [draw(drawer, kind, kept) for kind in get_args(Drawing)] == [None, None]
    assert view(drawer, "overlay", kept) is None
    assert view(drawer, "heatmap", kept) is None
    assert read_jpeg(view(drawer, "picture", kept)).shape == (40, 60, 3)


Asked = list[asyncio.Task[bytes | None]]


async def fill(waiting: Drawer, held: Held, kept: Source) -> Asked:
    """Ask for as many pictures as may wait; the first is being drawn, and held, when this returns."""
    held.let_go.clear()
    held.reading.clear()
    asked = [asyncio.create_task(one_more(waiting, kept)) for _ in range(MOST)]
    assert await asyncio.to_thread(held.reading.wait, PATIENCE)
    return asked


async def one_more(waiting: Drawer, kept: Source) -> bytes | None:
    return await waiting.draw("heatmap", kept, SCALE)


async def refused(waiting: Drawer, kept: Source) -> None:
    with pytest.raises(Problem) as caught:
        await one_more(waiting, kept)
    assert caught.value.name == "queue-full"
    assert str(caught.value) == "32 pictures wait to be drawn, the limit; try again later."
    with pytest.raises(Problem) as caught:
        await waiting.view("picture", kept, SCALE, 30)
    assert caught.value.name == "queue-full"


async def drawn(held: Held, asked: Asked) -> bool:
    """Let go of all that wait; whether each got its picture."""
    held.let_go.set()
    return all((data or b"").startswith(b"\x89PNG") for data in await asyncio.gather(*asked))


def test_one_more_than_may_wait_is_refused_until_the_others_have_theirs(waiting: Drawer, held: Held) -> None:
    async def work() -> None:
        kept = keep(held, encoded(60, 40))
        for _ in range(2):
            asked = await fill(waiting, held, kept)
            await refused(waiting, kept)  # which takes no place, and gives none away
            await refused(waiting, kept)
            assert await drawn(held, asked)

    run(work())


def test_who_leaves_makes_room_for_one_and_is_not_drawn_for(waiting: Drawer, held: Held) -> None:
    async def work() -> None:
        kept = keep(held, encoded(60, 40))
        *asked, leaving = await fill(waiting, held, kept)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        next_one = asyncio.create_task(one_more(waiting, kept))
        await asyncio.create_task(refused(waiting, kept))
        assert await drawn(held, [*asked, next_one])

    run(work())
    assert len(held.readers) == MOST
