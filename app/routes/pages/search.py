"""Search for inspections in the history."""

from typing import Annotated, Any, get_args

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.auth.permissions import MaySeeHistory
from app.dependencies import HistoryDep, SettingsDep
from app.routes.inspection import ID_PATTERN
from app.routes.pages.filter import PageFilter
from app.routes.pages.wall import list_inspections
from app.schemas.predict import WarningCode
from app.web.page import PagePart, PageRoute

router = APIRouter(route_class=PageRoute)


@router.get("/search", response_class=Response)
async def show_search(
    caller: MaySeeHistory,
    page: PagePart,
    chosen: PageFilter,
    settings: SettingsDep,
    history: HistoryDep,
    before: Annotated[str | None, Query(pattern=ID_PATTERN)] = None,
) -> Response:
    """Show the inspections that match the criteria, newest first."""

    def read() -> dict[str, Any]:
        with history.database.read() as connection:
            return list_inspections(connection, chosen, before, settings, caller)

    found = await run_in_threadpool(read)
    return page.render("search.html", chosen=chosen, codes=get_args(WarningCode), **found)
