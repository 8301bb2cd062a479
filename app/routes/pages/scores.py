"""The page of scores over time."""

from dataclasses import replace
from typing import Annotated, Final

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.auth.permissions import MaySeeHistory
from app.dependencies import HistoryDep, SettingsDep
from app.history import browsing
from app.routes.pages.filter import PageFilter, visible_categories
from app.web.chart import ScoreChart
from app.web.page import PagePart, PageRoute

router = APIRouter(route_class=PageRoute)

LENGTHS: Final = (100, 300, 1000)  # inspections in the chart


@router.get("/scores", response_class=Response)
async def show_scores(
    caller: MaySeeHistory,
    page: PagePart,
    chosen: PageFilter,
    settings: SettingsDep,
    history: HistoryDep,
    last: Annotated[int, Query(ge=1, le=max(LENGTHS))] = LENGTHS[1],
) -> Response:
    """Draw the latest scores of a category, by default of the first one."""
    names = await run_in_threadpool(visible_categories, settings.models, caller)
    if chosen.category is None and names:
        chosen = replace(chosen, category=names[0])

    def read() -> tuple[list[browsing.ScorePoint], list[str]]:
        with history.database.read() as connection:
            scored = [] if chosen.category is None else browsing.load_scores(connection, chosen, last)
            return scored, browsing.list_stations(connection, caller.categories)

    scored, stations = await run_in_threadpool(read)
    return page.render(
        "scores.html",
        categories=names,
        stations=stations,
        chosen=chosen,
        lengths=LENGTHS,
        last=last,
        scored=scored,
        chart=ScoreChart.of(scored),
    )
