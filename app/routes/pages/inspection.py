"""The page of one inspection: image, heatmap, decision and reviews."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, Literal, NamedTuple

from fastapi import APIRouter
from sqlalchemy import Row
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.auth.permissions import MaySeeResult
from app.dependencies import HistoryDep, ProductsDep, SettingsDep
from app.history import browsing, queries, reviews
from app.history.browsing import AdjacentInspections, ScorePoint
from app.history.drawing import View
from app.history.history import History
from app.history.queries import InspectionFilter
from app.inspection.answer import read_answer
from app.products.products import Products
from app.routes.inspection import AnswerFile, KnownInspection
from app.routes.pages.filter import PageFilter, PageSelection
from app.routes.pages.typical_image import SCREEN_SIDE, typical_address
from app.schemas.access import Permission
from app.schemas.review import Review
from app.web.chart import Scale
from app.web.page import PagePart, PageRoute

router = APIRouter(route_class=PageRoute)
_images = APIRouter()

_EARLIER_SCORES: Final = 100  # shown on the scale beside the inspection's own score
Name = Literal["thumbnail", "picture", "overlay", "large-picture", "large-overlay"]
_VIEWS: Final[dict[Name, tuple[View, int]]] = {
    "thumbnail": ("overlay", 360),
    "picture": ("picture", SCREEN_SIDE),
    "overlay": ("overlay", SCREEN_SIDE),
    "large-picture": ("picture", 4 * SCREEN_SIDE),
    "large-overlay": ("overlay", 4 * SCREEN_SIDE),
}


class ReviewQueue(NamedTuple):
    """Number and address of inspections to review, and the kinds of defect to choose from."""

    unreviewed: int = 0  # of the audit sample
    following: str | None = None
    kinds: Sequence[str] = ()


@router.get("/inspections/{inspection_id}", response_class=Response)
async def show_inspection(
    row: KnownInspection,
    _: MaySeeResult,
    page: PagePart,
    chosen: PageFilter,
    history: HistoryDep,
    products: ProductsDep,
    settings: SettingsDep,
    audit: bool = False,
) -> Response:
    """Show an inspection; in the queue of the audit sample, without its decision until it is reviewed."""
    audit &= row.audit
    if audit:
        chosen = chosen.audit_queue()
    answer = read_answer(row.answer)
    threshold = answer["threshold"]
    before: list[ScorePoint] = []
    adjacent = AdjacentInspections(None, None)
    shown_reviews: list[Review] = []
    queue = ReviewQueue()
    if page.may(Permission.HISTORY):
        before, adjacent, shown_reviews = await run_in_threadpool(_load_context, history, row, chosen)
    if page.may(Permission.REVIEW):
        queue = await run_in_threadpool(_load_queue, history, products, row, chosen)
    return page.render(
        "inspection.html",
        row=row,
        answer=answer,
        typical=await run_in_threadpool(typical_address, settings.models, row.category, row.version),
        chosen=chosen,
        blind=audit and row.verdict is None and page.may(Permission.REVIEW),
        **queue._asdict(),
        adjacent=adjacent,
        reviews=shown_reviews,
        scale=Scale.of(row.score, threshold["reject"], threshold["review"], before),
        p_words=page.say.p_value(row.p_value, threshold["n_calibration"]),
    )


def _load_context(
    history: History, row: Row[Any], chosen: PageSelection
) -> tuple[list[ScorePoint], AdjacentInspections, list[Review]]:
    same_station = InspectionFilter(category=row.category, station=row.station)
    with history.database.read() as connection:
        before = browsing.load_scores(connection, same_station, _EARLIER_SCORES, row.id)
        adjacent = browsing.find_adjacent(connection, chosen, row.id)
    same_version = [score for score in before if score.version == row.version and score.id != row.id]
    return same_version, adjacent, reviews.list_reviews(history.database, row.id)


def _load_queue(history: History, products: Products, row: Row[Any], chosen: PageSelection) -> ReviewQueue:
    """Load what a reviewer needs; the next inspection is the next older one, else the newest."""
    waiting = replace(chosen, reviewed=False)
    with history.database.read() as connection:
        older = queries.find_page(connection, waiting, 1, row.id)
        newest = [one for one in queries.find_page(connection, waiting, 2) if one.id != row.id]
        unreviewed = browsing.count_inspections(connection, chosen) if chosen.audit else 0
    following = f"/audit{chosen.query_string}" if chosen.audit else None
    if found := older or (() if chosen.audit else newest):
        following = f"/inspections/{found[0].id}{chosen.query_string}"
    kinds = [kind for product in products.find([row.category]) for kind in json.loads(product.kinds)]
    return ReviewQueue(unreviewed, following, kinds)


@_images.get("/inspections/{inspection_id}/{name}.jpg", response_class=Response)
async def get_view(name: Name, answer: AnswerFile) -> Response:
    """Return a JPEG for the screen. The API returns the same view at full size."""
    return await answer(*_VIEWS[name])


router.include_router(_images)
