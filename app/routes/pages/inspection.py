"""One inspection, large: what was seen, why it was decided so, and what people say of it."""

import json
from typing import Any, Final

from fastapi import APIRouter
from sqlalchemy import Row
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.access import Caller, MaySeeResult, Permission
from app.dependencies import HistoryPart
from app.history import browsing, reviews
from app.history.browsing import Neighbours, Scored
from app.history.history import History
from app.history.queries import Filter
from app.routes.known_inspection import KnownInspection
from app.routes.pages.chosen import ChosenPart
from app.schemas.review import Review
from app.web.chart import Scale
from app.web.page import PagePart, PageRoute
from app.web.words import p_value_words

router = APIRouter(route_class=PageRoute)

# Scores of inspections before it, among which its own is shown.
_AMONG: Final = 100


@router.get("/inspections/{inspection_id}", response_class=Response)
async def show_inspection(
    row: KnownInspection, caller: MaySeeResult, page: PagePart, chosen: ChosenPart, history: HistoryPart
) -> Response:
    """Show an inspection."""
    answer = json.loads(row.answer)
    threshold = answer["threshold"]
    before: list[Scored] = []
    beside = Neighbours(None, None)
    said: list[Review] = []
    if page.may(Permission.HISTORY):
        wanted = chosen.filter(caller)
        before, beside, said = await run_in_threadpool(_around, history, caller, row, wanted)
    return page.render(
        "inspection.html",
        row=row,
        answer=answer,
        trail=chosen.trail,
        beside=beside,
        reviews=said,
        scale=Scale.of(row.score, threshold["reject"], threshold["review"], before),
        p_words=p_value_words(page.say, row.p_value, threshold["n_calibration"]),
    )


def _around(
    history: History, caller: Caller, row: Row[Any], wanted: Filter
) -> tuple[list[Scored], Neighbours, list[Review]]:
    alike = Filter(category=row.category, station=row.station)
    with history.database.read() as connection:
        before = browsing.trace(connection, alike, _AMONG, row.id)
        beside = browsing.neighbours(connection, wanted, row.id)
    of_version = [one for one in before if one.version == row.version and one.id != row.id]
    return of_version, beside, reviews.of(history.database, caller, row.id)
