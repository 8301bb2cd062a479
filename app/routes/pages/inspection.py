"""One inspection, large: what was seen, why it was decided so, and what people say of it."""

import json
from typing import Any, Final, Literal

from fastapi import APIRouter
from sqlalchemy import Row
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.auth.access import MaySeeResult
from app.dependencies import HistoryDep
from app.history import browsing, reviews
from app.history.browsing import AdjacentInspections, ScorePoint
from app.history.drawing import View
from app.history.history import History
from app.history.queries import InspectionFilter
from app.routes.inspection import AnswerFile, KnownInspection
from app.routes.pages.filter import Chosen, PageFilter
from app.schemas.access import Permission
from app.schemas.review import Review
from app.web.chart import Scale
from app.web.page import PagePart, PageRoute

router = APIRouter(route_class=PageRoute)
_images = APIRouter()

_AMONG: Final = 100  # scores of inspections before it, among which its own is shown
Name = Literal["thumbnail", "picture", "heatmap", "overlay"]
_LARGE: Final = 1280  # pixels
_VIEWS: Final[dict[Name, tuple[View, int]]] = {
    "thumbnail": ("overlay", 360),
    "picture": ("picture", _LARGE),
    "heatmap": ("heatmap", _LARGE),
    "overlay": ("overlay", _LARGE),
}


@router.get("/inspections/{inspection_id}", response_class=Response)
async def show_inspection(
    row: KnownInspection, _: MaySeeResult, page: PagePart, chosen: PageFilter, history: HistoryDep
) -> Response:
    """Show an inspection."""
    answer = json.loads(row.answer)
    threshold = answer["threshold"]
    before: list[ScorePoint] = []
    beside = AdjacentInspections(None, None)
    said: list[Review] = []
    if page.may(Permission.HISTORY):
        before, beside, said = await run_in_threadpool(_around, history, row, chosen)
    return page.render(
        "inspection.html",
        row=row,
        answer=answer,
        trail=chosen.trail,
        beside=beside,
        reviews=said,
        scale=Scale.of(row.score, threshold["reject"], threshold["review"], before),
        p_words=page.say.p_value(row.p_value, threshold["n_calibration"]),
    )


def _around(
    history: History, row: Row[Any], chosen: Chosen
) -> tuple[list[ScorePoint], AdjacentInspections, list[Review]]:
    alike = InspectionFilter(category=row.category, station=row.station)
    with history.database.read() as connection:
        before = browsing.load_scores(connection, alike, _AMONG, row.id)
        beside = browsing.find_adjacent(connection, chosen, row.id)
    of_version = [one for one in before if one.version == row.version and one.id != row.id]
    return of_version, beside, reviews.list_reviews(history.database, row.id)


@_images.get("/inspections/{inspection_id}/{name}.jpg", response_class=Response)
async def get_view(name: Name, answer: AnswerFile) -> Response:
    """Draw a JPEG no larger than a screen. The API has the same in full."""
    return await answer(*_VIEWS[name])


router.include_router(_images)
