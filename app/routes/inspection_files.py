"""What an inspection's decision can be seen by: the picture, the heatmap, the overlay, the map."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

from fastapi import APIRouter, Request
from sqlalchemy import Row
from starlette.responses import Response, StreamingResponse

from app import immutable
from app.dependencies import HistoryPart
from app.history.history import History
from app.history.pictures import media_type
from app.openapi import documented
from app.problems import Problem, ProblemName
from app.routes.known_inspection import KnownInspection
from flows.fastflow.heatmap import ColourScale

router = APIRouter(prefix="/v1/inspections/{inspection_id}", tags=["history"])

_PIECE_BYTES: Final = 64 * 1024
_FORMATS: Final = ("image/png", "image/jpeg", "image/bmp", "image/tiff", "image/webp")


def _documented(*media_types: str, drawn: bool = False) -> dict[int | str, dict[str, Any]]:
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in media_types}
    names: list[ProblemName] = ["unknown-inspection", "internal", "history-unavailable"]
    problems = documented(*names, "queue-full") if drawn else documented(*names)
    return {
        200: {"description": "It never changes.", "content": content, "headers": dict(immutable.HEADERS)},
        304: dict(immutable.NOT_MODIFIED),
        **problems,
    }


_DRAWN: Final = _documented("image/png", drawn=True)


@router.get("/overlay.png", response_class=Response, responses=_DRAWN)
async def get_overlay(request: Request, row: KnownInspection, history: HistoryPart) -> Response:
    """Draw the uploaded image with its heatmap over it."""
    return await _drawn(request, row, history, "overlay")


@router.get("/heatmap.png", response_class=Response, responses=_DRAWN)
async def get_heatmap(request: Request, row: KnownInspection, history: HistoryPart) -> Response:
    """Draw the map in colours, at the size of the uploaded image."""
    return await _drawn(request, row, history, "heatmap")


@router.get("/source", response_class=Response, responses=_documented(*_FORMATS))
def get_source(request: Request, row: KnownInspection, history: HistoryPart) -> Response:
    """Give the uploaded image, byte for byte."""
    return _kept(request, row, history.pictures.picture_path(row.image_sha256), row.image_sha256, None)


@router.get("/map.npy", response_class=Response, responses=_documented("application/x-npy"))
def get_map(request: Request, row: KnownInspection, history: HistoryPart) -> Response:
    """Give the anomaly map as NumPy's .npy: float16, (height, width) of the model's input."""
    path = history.pictures.map_path(row.id)
    return _kept(request, row, path, f"{row.id}.map", "application/x-npy")


async def _drawn(
    request: Request, row: Row[Any], history: History, kind: Literal["overlay", "heatmap"]
) -> Response:
    tag = f"{row.id}.{kind}"
    if not row.has_pictures:
        raise _gone()
    if (known := immutable.not_modified(request, tag)) is not None:
        return known
    scale = ColourScale(row.map_low, row.map_middle)
    png = await history.drawer.draw(kind, row.id, row.image_sha256, scale)
    if png is None:
        raise _gone()
    return Response(png, headers=immutable.headers(tag), media_type="image/png")


def _kept(request: Request, row: Row[Any], path: Path, tag: str, kind: str | None) -> Response:
    """A file as it is kept; its kind is looked up in it where none is given."""
    if not row.has_pictures:
        raise _gone()
    if (known := immutable.not_modified(request, tag)) is not None:
        return known
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise _gone() from error
    # An open file stays, should retention remove it meanwhile.
    size = os.fstat(file.fileno()).st_size
    kind = kind or media_type(file.read(16))
    file.seek(0)
    headers = {**immutable.headers(tag), "Content-Length": str(size)}
    return StreamingResponse(_pieces(file), headers=headers, media_type=kind)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


def _gone() -> Problem:
    return Problem("unknown-inspection", "Retention has removed the picture and the map of this inspection.")
