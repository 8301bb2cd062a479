"""Pages of many inspections: the wall with the latest as they happen, and scores over time."""

from dataclasses import replace
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from app.auth.access import AnyCaller, MaySeeHistory
from app.database import clock
from app.dependencies import HistoryDep, SettingsDep
from app.history import browsing, queries
from app.routes.inspection import ID_PATTERN
from app.routes.pages.filter import Chosen, PageFilter, categories
from app.schemas.access import Permission
from app.schemas.predict import Decision
from app.web.chart import Chart
from app.web.page import PagePart, PageRoute

router = APIRouter(route_class=PageRoute)
_data = APIRouter()

SHOWN: Final = 24  # inspections on the wall
HOURS: Final = 8  # that the wall counts
LENGTHS: Final = (100, 300, 1000)  # of the chart of scores


@router.get("/", response_class=Response)
async def show_wall(
    caller: AnyCaller,
    page: PagePart,
    chosen: PageFilter,
    settings: SettingsDep,
    history: HistoryDep,
    before: Annotated[str | None, Query(pattern=ID_PATTERN)] = None,
) -> Response:
    """Show the latest inspections; those before one of them stand still."""
    if page.may(Permission.PREDICT) and not page.may(Permission.HISTORY):
        return RedirectResponse("/inspect", 303)  # the first page of a line PC
    caller.require(Permission.HISTORY)

    def read() -> dict[str, Any]:
        with history.database.read() as connection:
            rows = queries.find_page(connection, chosen, SHOWN + 1, before)
            return {
                "rows": rows[:SHOWN],
                "older": rows[SHOWN - 1].id if len(rows) > SHOWN else None,
                "stations": browsing.list_stations(connection, caller.categories),
                "counts": _count(connection, chosen),
                "categories": categories(settings.models, caller),
            }

    shown = await run_in_threadpool(read)
    return page.render("wall.html", chosen=chosen, live=before is None, limit=SHOWN, hours=HOURS, **shown)


@_data.get("/wall/counts")
def get_counts(
    _: MaySeeHistory, chosen: PageFilter, history: HistoryDep
) -> dict[Literal["decisions"], dict[Decision, int]]:
    """Count the last hours, for a wall that is live."""
    with history.database.read() as connection:
        return {"decisions": _count(connection, chosen)}


router.include_router(_data)


def _count(connection: Connection, chosen: Chosen) -> dict[Decision, int]:
    """Count the inspections of the last hours by decision, whichever decision was chosen."""
    return browsing.count_decisions(connection, replace(chosen, from_ms=clock.now_ms() - HOURS * 3_600_000))


@router.get("/scores", response_class=Response)
async def show_scores(
    caller: MaySeeHistory,
    page: PagePart,
    chosen: PageFilter,
    settings: SettingsDep,
    history: HistoryDep,
    last: Annotated[int, Query(ge=1, le=max(LENGTHS))] = LENGTHS[1],
) -> Response:
    """Draw the latest scores of a category; of the first one that there is, where none was chosen."""
    there = await run_in_threadpool(categories, settings.models, caller)
    if chosen.category is None and there:
        chosen = replace(chosen, category=there[0])

    def read() -> tuple[list[browsing.ScorePoint], list[str]]:
        with history.database.read() as connection:
            scored = [] if chosen.category is None else browsing.load_scores(connection, chosen, last)
            return scored, browsing.list_stations(connection, caller.categories)

    scored, stations = await run_in_threadpool(read)
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
