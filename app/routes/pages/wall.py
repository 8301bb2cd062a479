"""The wall: the latest inspections, updated live."""

from dataclasses import replace
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from pydantic import BaseModel
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from app.auth.permissions import AnyCaller, Caller, MaySeeHistory
from app.database import clock
from app.dependencies import DriftDep, HistoryDep, SettingsDep
from app.history import browsing, queries
from app.routes.inspection import ID_PATTERN
from app.routes.pages.filter import PageFilter, PageSelection, visible_categories
from app.schemas.access import Permission
from app.schemas.predict import Decision
from app.settings import Settings
from app.web.page import PagePart, PageRoute

router = APIRouter(route_class=PageRoute)
_data = APIRouter()

SHOWN_INSPECTIONS: Final = 24
COUNTED_HOURS: Final = 8
_TREND_MS: Final = 1_800_000


class DriftAlarm(BaseModel):
    """A category whose latest parts differ from its calibration images, at a station with its own."""

    category: str
    station: str | None


class WallFigures(BaseModel):
    """Counts of the last hours: by decision, and passed and all of each half hour, the earliest first."""

    decisions: dict[Decision, int]
    unreviewed: int  # of the audit sample
    trend: list[tuple[int, int]]
    drift: list[DriftAlarm]


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
            return {
                **list_inspections(connection, chosen, before, settings, caller),
                "counts": _count(connection, chosen),
                "unreviewed": browsing.count_inspections(connection, chosen.audit_queue()),
            }

    shown = await run_in_threadpool(read)
    return page.render(
        "wall.html", chosen=chosen, live=before is None, limit=SHOWN_INSPECTIONS, hours=COUNTED_HOURS, **shown
    )


def list_inspections(
    connection: Connection, chosen: PageSelection, before: str | None, settings: Settings, caller: Caller
) -> dict[str, Any]:
    """Read what a page with a list of inspections shows: the newest, or those before an id."""
    rows = queries.find_page(connection, chosen, SHOWN_INSPECTIONS + 1, before)
    return {
        "rows": rows[:SHOWN_INSPECTIONS],
        "older": rows[SHOWN_INSPECTIONS - 1].id if len(rows) > SHOWN_INSPECTIONS else None,
        "stations": browsing.list_stations(connection, caller.categories),
        "categories": visible_categories(settings.models, caller),
    }


@_data.get("/wall/counts")
def get_counts(
    caller: MaySeeHistory, chosen: PageFilter, history: HistoryDep, drift: DriftDep, settings: SettingsDep
) -> WallFigures:
    """Return the figures of a live wall."""
    first = clock.now_ms() - COUNTED_HOURS * 3_600_000
    starts = [first + i * _TREND_MS for i in range(COUNTED_HOURS * 3_600_000 // _TREND_MS)]
    names = visible_categories(settings.models, caller) if chosen.category is None else [chosen.category]
    windows = [(name, window) for name in names for window in drift.windows(name) if window.alarm]
    with history.database.read() as connection:
        return WallFigures(
            decisions=_count(connection, chosen),
            unreviewed=browsing.count_inspections(connection, chosen.audit_queue()),
            trend=browsing.count_passed(connection, chosen, starts, _TREND_MS),
            drift=[
                DriftAlarm(category=name, station=window.station)
                for name, window in windows
                if chosen.station is None or window.station in (None, chosen.station)
            ],
        )


router.include_router(_data)


def _count(connection: Connection, chosen: PageSelection) -> dict[Decision, int]:
    """Count the inspections of the last hours by decision; the filter's own decision is ignored."""
    return browsing.count_decisions(
        connection, replace(chosen, from_ms=clock.now_ms() - COUNTED_HOURS * 3_600_000)
    )
