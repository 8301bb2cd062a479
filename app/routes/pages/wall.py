"""The wall: the latest inspections, as they happen."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from app.access import AnyCaller, Permission
from app.dependencies import HistoryPart, SettingsPart
from app.history import browsing, queries
from app.routes.pages import counts
from app.routes.pages.categories import categories
from app.routes.pages.chosen import ChosenPart
from app.web.page import PagePart, PageRoute

router = APIRouter(route_class=PageRoute)

SHOWN: Final = 24


@router.get("/", response_class=Response)
async def show_wall(
    caller: AnyCaller,
    page: PagePart,
    chosen: ChosenPart,
    settings: SettingsPart,
    history: HistoryPart,
    before: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """Show the latest inspections; those before a cursor stand still."""
    if page.may(Permission.PREDICT) and not page.may(Permission.HISTORY):
        return RedirectResponse("/inspect", 303)  # the first page of a line PC
    caller.expect(Permission.HISTORY)
    wanted = chosen.filter(caller)
    after = None if before is None else queries.read_cursor(before)

    def read() -> dict[str, Any]:
        with history.database.read() as connection:
            rows = queries.page(connection, wanted, SHOWN + 1, after)
            stations = browsing.stations(connection, caller.categories)
            counted = counts.count(connection, caller, chosen)
        return {
            "rows": rows[:SHOWN],
            "older": queries.cursor_after(rows[SHOWN - 1].id) if len(rows) > SHOWN else None,
            "stations": stations,
            "counts": counted,
            "categories": categories(settings.models, caller),
        }

    shown = await run_in_threadpool(read)
    return page.render(
        "wall.html", chosen=chosen, live=after is None, limit=SHOWN, hours=counts.HOURS, **shown
    )
