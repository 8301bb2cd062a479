"""The wall: the latest inspections, updated live."""

from dataclasses import replace
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from app.auth.permissions import AnyCaller, MaySeeHistory
from app.database import clock
from app.dependencies import HistoryDep, SettingsDep
from app.history import browsing, queries
from app.routes.inspection import ID_PATTERN
from app.routes.pages.filter import PageFilter, PageSelection, visible_categories
from app.schemas.access import Permission
from app.schemas.predict import Decision
from app.web.page import PagePart, PageRoute

router = APIRouter(route_class=PageRoute)
_data = APIRouter()

SHOWN_INSPECTIONS: Final = 24
COUNTED_HOURS: Final = 8


@router.get("/", response_class=Response)
async def show_wall(
    caller: AnyCaller,
    page: PagePart,
    chosen: PageFilter,
    settings: SettingsDep,
    history: HistoryDep,
    before: Annotated[str | None, Query(pattern=ID_PATTERN)] = None,
) -> Response:
    """Show the latest inspections, or with `before` a static page of older ones."""
    if page.may(Permission.PREDICT) and not page.may(Permission.HISTORY):
        return RedirectResponse("/inspect", 303)  # a key that may only predict, such as that of a line PC
    caller.require(Permission.HISTORY)

    def read() -> dict[str, Any]:
        with history.database.read() as connection:
            rows = queries.find_page(connection, chosen, SHOWN_INSPECTIONS + 1, before)
            return {
                "rows": rows[:SHOWN_INSPECTIONS],
                "older": rows[SHOWN_INSPECTIONS - 1].id if len(rows) > SHOWN_INSPECTIONS else None,
                "stations": browsing.list_stations(connection, caller.categories),
                "counts": _count(connection, chosen),
                "unreviewed": browsing.count_inspections(connection, chosen.audit_queue()),
                "categories": visible_categories(settings.models, caller),
            }

    shown = await run_in_threadpool(read)
    return page.render(
        "wall.html", chosen=chosen, live=before is None, limit=SHOWN_INSPECTIONS, hours=COUNTED_HOURS, **shown
    )


@_data.get("/wall/counts")
def get_counts(
    _: MaySeeHistory, chosen: PageFilter, history: HistoryDep
) -> dict[str, dict[Decision, int] | int]:
    """Count the inspections of the last hours, and those of the audit sample to review, for a live wall."""
    with history.database.read() as connection:
        return {
            "decisions": _count(connection, chosen),
            "unreviewed": browsing.count_inspections(connection, chosen.audit_queue()),
        }


router.include_router(_data)


def _count(connection: Connection, chosen: PageSelection) -> dict[Decision, int]:
    """Count the inspections of the last hours by decision; the filter's own decision is ignored."""
    return browsing.count_decisions(
        connection, replace(chosen, from_ms=clock.now_ms() - COUNTED_HOURS * 3_600_000)
    )
