"""Images on their way into a dataset: decode, describe, store, each with its own outcome."""

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from sqlalchemy import Row
from starlette.concurrency import run_in_threadpool

from app.errors.problem_responses import to_problem
from app.errors.problems import Problem, ProblemName
from app.history.drawing import encode_jpeg, shrink
from app.history.inspection_files import detect_format
from app.inspection.decoding import Pixels
from app.inspection.image_pipeline import InspectionPipeline
from app.products.image_store import ImageStore, NewImage, RefusedImage
from app.products.rows import file_name
from app.schemas.history import Verdict
from app.schemas.products import ImageSource, ItemStatus
from app.schemas.texts import MAX_TEXT

THUMBNAIL_SIDE: Final = 256
MIN_SIDE: Final = 32  # pixels; a smaller image is an icon, or cut by mistake
_STATUS: Final[dict[ProblemName, ItemStatus]] = {
    "undecodable-image": "undecodable",
    "unsupported-media-type": "unsupported",
    "too-large": "too-large",
}


class Candidate(NamedTuple):
    """An image to store.

    Attributes:
        filename: as it came, in answers; None if it has none.
        data: the bytes, a function that reads them, or the reason why there are none.
    """

    filename: str | None
    data: bytes | Callable[[], bytes] | Problem
    label: Verdict = "good"
    kind: str | None = None
    source: ImageSource = "upload"
    part_id: str | None = None
    inspection_id: str | None = None


class Outcome(NamedTuple):
    """Fate of a candidate: its row unless it was refused, and the reason if so."""

    filename: str | None
    status: ItemStatus
    image: Row[Any] | None = None
    problem: Problem | None = None


async def store_images(
    candidates: Iterable[Candidate], images: ImageStore, pipeline: InspectionPipeline, product: str
) -> list[Outcome]:
    """Store images one by one, between inspections; one that is refused does not stop the others."""
    return [await store_image(candidate, images, pipeline, product) for candidate in candidates]


async def store_image(
    candidate: Candidate, images: ImageStore, pipeline: InspectionPipeline, product: str
) -> Outcome:
    try:
        row, is_new = await _store(candidate, images, pipeline, product)
    except Exception as error:  # the others go on, whatever it is
        problem = to_problem(error)
        status = (
            problem.item_status if isinstance(problem, RefusedImage) else _STATUS.get(problem.name, "failed")
        )
        return Outcome(candidate.filename, status, problem=problem)
    return Outcome(candidate.filename, "stored" if is_new else "duplicate", row)


async def draw_thumbnail(images: ImageStore, pipeline: InspectionPipeline, image: Row[Any]) -> bytes | None:
    """Read the thumbnail of an image, or draw and keep it; None if the image is missing or damaged."""
    name = file_name(image)
    known = await run_in_threadpool(images.files.read_thumbnail, image.product, name)
    if known is not None:
        return known
    data = await run_in_threadpool(images.files.read, image.product, name)
    if data is None:
        return None
    drawn = await pipeline.read_pixels(image.product, data, _draw)
    await run_in_threadpool(images.files.write_thumbnail, image.product, name, drawn)
    return drawn


async def _store(
    candidate: Candidate, images: ImageStore, pipeline: InspectionPipeline, product: str
) -> tuple[Row[Any], bool]:
    data = candidate.data
    if isinstance(data, Problem):
        raise data
    if not isinstance(data, bytes):
        data = await run_in_threadpool(data)
    height, width, thumbnail = await pipeline.read_pixels(product, data, _describe)
    suffix = detect_format(data).suffix
    name = candidate.filename or f"image.{suffix}"
    new = NewImage(
        sha256=hashlib.sha256(data).hexdigest(),
        suffix=suffix,
        # PostgreSQL refuses NUL and surrogates.
        name="".join(c if c.isprintable() else "\ufffd" for c in name[-MAX_TEXT:]),
        width=width,
        height=height,
        data=data,
        label=candidate.label,
        kind=candidate.kind,
        source=candidate.source,
        inspection_id=candidate.inspection_id,
        part_id=candidate.part_id,
    )

    def add() -> tuple[Row[Any], bool]:
        row, is_new = images.add(product, new)
        if is_new:
            images.files.write_thumbnail(product, file_name(row), thumbnail)
        return row, is_new

    return await run_in_threadpool(add)


def _describe(pixels: Pixels) -> tuple[int, int, bytes]:
    height, width, _ = pixels.shape
    if min(height, width) < MIN_SIDE:
        raise RefusedImage(
            "too-small",
            "undecodable-image",
            f"The image has {width} x {height} pixels; a product's images have at least {MIN_SIDE} a side.",
        )
    return height, width, _draw(pixels)


def _draw(pixels: Pixels) -> bytes:
    return encode_jpeg(shrink(pixels, THUMBNAIL_SIDE))
