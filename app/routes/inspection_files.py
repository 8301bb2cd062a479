"""What an inspection's decision can be seen by: the image, the heatmap, the overlay, the map."""

from contextlib import ExitStack
from typing import Any, Final, Literal

from fastapi import APIRouter, Request
from sqlalchemy import Row
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app import immutable
from app.access import Caller, MaySeeResult
from app.dependencies import HistoryPart
from app.history.drawing import Source
from app.history.history import History
from app.history.losses import gone, lost
from app.history.pictures import FORMATS, format_of
from app.openapi import documented
from app.problems import ProblemName
from app.routes.known_inspection import KnownInspection
from app.scheduling.disconnect import cancel_on_disconnect
from app.sending import Accounted
from flows.fastflow.heatmap import ColourScale

router = APIRouter(prefix="/v1/inspections/{inspection_id}", tags=["history"])

_NPY: Final = "application/x-npy"


def _documented(*media_types: str) -> dict[int | str, dict[str, Any]]:
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in media_types}
    names: list[ProblemName] = ["unknown-inspection", "files-lost", "internal", "history-unavailable"]
    problems = documented(*names, "queue-full")
    return {
        200: {"description": "It never changes.", "content": content, "headers": dict(immutable.HEADERS)},
        304: dict(immutable.NOT_MODIFIED),
        **problems,
    }


_DRAWN: Final = _documented("image/png")


@router.get("/overlay.png", response_class=Response, responses=_DRAWN)
async def get_overlay(
    request: Request, row: KnownInspection, history: HistoryPart, caller: MaySeeResult
) -> Response:
    """Draw the uploaded image with its heatmap over it."""
    return await _answer(request, caller, row, history, "overlay")


@router.get("/heatmap.png", response_class=Response, responses=_DRAWN)
async def get_heatmap(
    request: Request, row: KnownInspection, history: HistoryPart, caller: MaySeeResult
) -> Response:
    """Draw the map in colours, at the size of the uploaded image."""
    return await _answer(request, caller, row, history, "heatmap")


@router.get(
    "/source",
    response_class=Response,
    responses=_documented(*(one.media_type for one in FORMATS)),
)
async def get_source(
    request: Request, row: KnownInspection, history: HistoryPart, caller: MaySeeResult
) -> Response:
    """Give the uploaded image, byte for byte."""
    return await _answer(request, caller, row, history, "source")


@router.get("/map.npy", response_class=Response, responses=_documented(_NPY))
async def get_map(
    request: Request, row: KnownInspection, history: HistoryPart, caller: MaySeeResult
) -> Response:
    """Give the anomaly map of the whole upload as NumPy's .npy: float16, (height, width) as computed."""
    return await _answer(request, caller, row, history, "map")


Kind = Literal["overlay", "heatmap", "source", "map"]


async def _answer(request: Request, caller: Caller, row: Row[Any], history: History, kind: Kind) -> Response:
    """Answer with a file that is kept or drawn; its bytes are on the account until they are sent."""
    tag = row.image_sha256 if kind == "source" else f"{row.id}.{kind}"
    if not row.has_pictures:
        raise gone()
    if (known := immutable.not_modified(request, tag)) is not None:
        return known
    with ExitStack() as stack:
        room = stack.enter_context(history.drawer.unsent.reserve(caller.key_id or kind))
        content = await _content(request, caller, row, history, kind)
        if content is None:
            raise await run_in_threadpool(lost, history.database, row.id)
        media_type = {"source": format_of(content).media_type, "map": _NPY}.get(kind, "image/png")
        response = Response(content, headers=immutable.headers(tag), media_type=media_type)
        stack.pop_all()  # sending it gives the room back
    return Accounted(response, room)


async def _content(
    request: Request, caller: Caller, row: Row[Any], history: History, kind: Kind
) -> bytes | None:
    """The bytes of a file; None where what it is made from is missing or damaged."""
    if kind == "source":
        return await run_in_threadpool(history.pictures.picture, row.image_sha256)
    if kind == "map":
        return await run_in_threadpool(history.pictures.map_file, row.id)
    scale = ColourScale(row.map_low, row.map_middle)
    drawing = history.drawer.draw(kind, Source.of(row), scale, caller.key_id)
    return await cancel_on_disconnect(request, drawing)  # whoever leaves makes room for the others
