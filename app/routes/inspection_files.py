"""Files of an inspection: the uploaded image, the heatmap, the overlay, the map."""

from contextlib import ExitStack
from typing import Any, Final, Literal

from fastapi import APIRouter, Request
from sqlalchemy import Row
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app import immutable
from app.access import Caller, MaySeeResult
from app.dependencies import HistoryPart
from app.history.drawing import Source, View
from app.history.history import History
from app.history.losses import gone, lost
from app.history.pictures import FORMATS, format_of
from app.openapi import documented
from app.problems import ProblemName
from app.routes.known_inspection import KnownInspection
from app.scheduling.disconnect import cancel_on_disconnect
from app.sending import Accounted

router = APIRouter(prefix="/v1/inspections/{inspection_id}", tags=["history"])

_NPY: Final = "application/x-npy"
Kind = View | Literal["source", "map"]


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
    return await answer_file(request, caller, row, history, "overlay")


@router.get("/heatmap.png", response_class=Response, responses=_DRAWN)
async def get_heatmap(
    request: Request, row: KnownInspection, history: HistoryPart, caller: MaySeeResult
) -> Response:
    """Draw the map in colours, at the size of the uploaded image."""
    return await answer_file(request, caller, row, history, "heatmap")


@router.get(
    "/source",
    response_class=Response,
    responses=_documented(*(one.media_type for one in FORMATS)),
)
async def get_source(
    request: Request, row: KnownInspection, history: HistoryPart, caller: MaySeeResult
) -> Response:
    """Give the uploaded image, byte for byte."""
    return await answer_file(request, caller, row, history, "source")


@router.get("/map.npy", response_class=Response, responses=_documented(_NPY))
async def get_map(
    request: Request, row: KnownInspection, history: HistoryPart, caller: MaySeeResult
) -> Response:
    """Give the anomaly map of the whole upload as NumPy's .npy: float16, (height, width) as computed."""
    return await answer_file(request, caller, row, history, "map")


async def answer_file(
    request: Request, caller: Caller, row: Row[Any], history: History, kind: Kind, side: int | None = None
) -> Response:
    """Answer with a file that is kept or drawn; its bytes are on the account until they are sent.

    Args:
        request: that asks for it.
        caller: who asks.
        row: of the inspection.
        history: where its files are.
        kind: which file.
        side: of a drawing: see `Drawer.draw`.

    Raises:
        Problem: unknown-inspection, where retention has removed it; files-lost; queue-full.
    """
    tag = row.image_sha256 if kind == "source" else f"{row.id}.{kind}" + (f".{side}" if side else "")
    if not row.has_pictures:
        raise gone()
    if (known := immutable.not_modified(request, tag)) is not None:
        return known
    with ExitStack() as stack:
        room = stack.enter_context(history.drawer.unsent.reserve(caller.key_id or kind))
        media_type = "image/png" if side is None else "image/jpeg"
        if kind == "source":
            content = await run_in_threadpool(history.pictures.picture, row.image_sha256)
            media_type = "" if content is None else format_of(content).media_type
        elif kind == "map":
            content, media_type = await run_in_threadpool(history.pictures.map_file, row.id), _NPY
        else:
            drawing = history.drawer.draw(kind, Source.of(row), side, caller.key_id)
            content = await cancel_on_disconnect(request, drawing)  # whoever leaves makes room for the others
        if content is None:
            raise await run_in_threadpool(lost, history.database, row.id)
        response = Response(content, headers=immutable.headers(tag), media_type=media_type)
        stack.pop_all()  # sending it gives the room back
    return Accounted(response, room)
