"""Files of an inspection: the uploaded image, the heatmap, the overlay, the map."""

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app import immutable
from app.access import MaySeeResult
from app.dependencies import HistoryPart
from app.history.drawing import Source, View
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


async def _answer(
    request: Request, row: KnownInspection, history: HistoryPart, caller: MaySeeResult
) -> Callable[..., Awaitable[Response]]:
    async def answer(kind: Kind, side: int | None = None) -> Response:
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
                content = await cancel_on_disconnect(request, drawing)  # makes room for the others
            if content is None:
                raise await run_in_threadpool(lost, history.database, row.id)
            response = Response(content, headers=immutable.headers(tag), media_type=media_type)
            stack.pop_all()  # sending it gives the room back
        return Accounted(response, room)

    return answer


# Answers with a file that is kept, or drawn as of `Drawer.draw`; its bytes are on the account until they are
# sent. Raises the problems unknown-inspection, where retention has removed it, files-lost and queue-full.
AnswerFile = Annotated[Callable[..., Awaitable[Response]], Depends(_answer)]


def _documented(*media_types: str) -> dict[int | str, dict[str, Any]]:
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in media_types}
    names: list[ProblemName] = ["unknown-inspection", "files-lost", "internal", "history-unavailable"]
    return {
        200: {"description": "It never changes.", "content": content, "headers": dict(immutable.HEADERS)},
        304: dict(immutable.NOT_MODIFIED),
        **documented(*names, "queue-full"),
    }


_DRAWN: Final = _documented("image/png")


@router.get("/overlay.png", response_class=Response, responses=_DRAWN)
async def get_overlay(answer: AnswerFile) -> Response:
    """Draw the uploaded image with its heatmap over it."""
    return await answer("overlay")


@router.get("/heatmap.png", response_class=Response, responses=_DRAWN)
async def get_heatmap(answer: AnswerFile) -> Response:
    """Draw the map in colours, at the size of the uploaded image."""
    return await answer("heatmap")


@router.get("/source", response_class=Response, responses=_documented(*(one.media_type for one in FORMATS)))
async def get_source(answer: AnswerFile) -> Response:
    """Give the uploaded image, byte for byte."""
    return await answer("source")


@router.get("/map.npy", response_class=Response, responses=_documented(_NPY))
async def get_map(answer: AnswerFile) -> Response:
    """Give the anomaly map of the whole upload as NumPy's .npy: float16, (height, width) as computed."""
    return await answer("map")
