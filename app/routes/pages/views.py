"""Pictures of an inspection as the pages show them: JPEG, and no larger than a screen."""

from typing import Final, Literal

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app import immutable
from app.access import MaySeeResult
from app.dependencies import HistoryPart
from app.history.drawing import Source, View
from app.history.losses import gone, lost
from app.routes.known_inspection import KnownInspection
from app.scheduling.disconnect import cancel_on_disconnect
from flows.fastflow.heatmap import ColourScale

router = APIRouter()

Name = Literal["thumbnail", "picture", "heatmap", "overlay"]
_SMALL: Final = 360
_LARGE: Final = 1280
_VIEWS: Final[dict[Name, tuple[View, int]]] = {
    "thumbnail": ("overlay", _SMALL),
    "picture": ("picture", _LARGE),
    "heatmap": ("heatmap", _LARGE),
    "overlay": ("overlay", _LARGE),
}


@router.get("/inspections/{inspection_id}/{name}.jpg", response_class=Response)
async def get_view(
    request: Request, name: Name, row: KnownInspection, history: HistoryPart, caller: MaySeeResult
) -> Response:
    """Draw one. The API has the same in full: overlay.png, heatmap.png and the upload itself."""
    tag = f"{row.id}.{name}.jpg"
    if not row.has_pictures:
        raise gone()
    if (known := immutable.not_modified(request, tag)) is not None:
        return known
    kind, side = _VIEWS[name]
    scale = ColourScale(row.map_low, row.map_middle)
    drawing = history.drawer.view(kind, Source.of(row), scale, side, caller.key_id)
    jpeg = await cancel_on_disconnect(request, drawing)
    if jpeg is None:
        raise await run_in_threadpool(lost, history.database, row.id)
    return Response(jpeg, headers=immutable.headers(tag), media_type="image/jpeg")
