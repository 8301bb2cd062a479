"""The scores of a category over time, with the thresholds that decided."""

from typing import Annotated, Final

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.access import MaySeeHistory
from app.dependencies import HistoryPart, SettingsPart
from app.history import browsing
from app.history.history import History
from app.history.queries import Filter
from app.routes.pages.categories import categories
from app.routes.pages.chosen import Chosen, ChosenPart
from app.web.chart import Chart
from app.web.page import PagePart, PageRoute

router = APIRouter(route_class=PageRoute)

LENGTHS: Final = (100, 300, 1000)


@router.get("/scores", response_class=Response)
async def show_scores(
    caller: MaySeeHistory,
    page: PagePart,
    chosen: ChosenPart,
    settings: SettingsPart,
    history: HistoryPart,
    last: Annotated[int, Query(ge=1, le=max(LENGTHS))] = LENGTHS[1],
) -> Response:
    """Draw the latest scores of a category; of the first one that there is, where none was chosen."""
    there = await run_in_threadpool(categories, settings.models, caller)
    if chosen.category is None and there:
        chosen = Chosen(there[0], chosen.station, chosen.decision)
    wanted = chosen.filter(caller)
    scored, stations = await run_in_threadpool(_read, history, wanted, last)
    return page.render(
        "scores.html",
        categories=there,
        stations=stations,
        chosen=chosen,
        lengths=LENGTHS,
        last=last,
        scored=scored,
        chart=Chart.of(scored),
    )


def _read(history: History, wanted: Filter, last: int) -> tuple[list[browsing.Scored], list[str]]:
    with history.database.read() as connection:
        stations = browsing.stations(connection, wanted.categories)
        if wanted.category is None:
            return [], stations
        return browsing.trace(connection, wanted, last), stations
