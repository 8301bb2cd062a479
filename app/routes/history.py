"""Search and export of stored inspections."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query
from sqlalchemy import Row
from starlette.responses import Response

from app.auth.permissions import Caller, MaySeeHistory
from app.database import clock
from app.dependencies import HistoryDep
from app.history import export, queries
from app.history.history import History
from app.http.responses import LimitedStreamingResponse
from app.routes.inspection import ID_PATTERN
from app.routes.openapi import documented
from app.routes.parameters import From, MaxMargin, MinMargin, To, require_category_of_margin, text_query
from app.schemas import history as schemas
from app.schemas.predict import Decision, WarningCode

router = APIRouter(prefix="/v1", tags=["history"])


async def _read_filter(
    caller: MaySeeHistory,
    category: Annotated[str | None, text_query("Of this category.", "bottle")] = None,
    decision: Annotated[Decision | None, Query(description="Only this decision.")] = None,
    part_id: Annotated[str | None, text_query("Of this part.", "P-000123")] = None,
    station: Annotated[str | None, text_query("From this station.", "line-3")] = None,
    verdict: Annotated[
        schemas.Verdict | None, Query(description="Only this verdict of the latest review.")
    ] = None,
    audit: Annotated[bool | None, Query(description="Only in, or only outside, the audit sample.")] = None,
    reviewed: Annotated[bool | None, Query(description="Only with, or only without, a review.")] = None,
    made_from: From = None,
    made_before: To = None,
    file_name: Annotated[str | None, text_query("Of the file of this name.", "top.png")] = None,
    warning: Annotated[WarningCode | None, Query(description="Only with this warning.")] = None,
    min_margin: MinMargin = None,
    max_margin: MaxMargin = None,
) -> queries.InspectionFilter:
    if category is not None:
        caller.require_category(category)
    require_category_of_margin(category, min_margin, max_margin)
    times = (made_from, made_before)
    from_ms, to_ms = (None if time is None else clock.from_datetime(time) for time in times)
    return queries.InspectionFilter(
        *(category, decision, part_id, station, verdict, audit, reviewed, from_ms, to_ms, caller.categories),
        file_name=file_name,
        warning=warning,
        min_margin=min_margin,
        max_margin=max_margin,
    )


FilterParams = Annotated[queries.InspectionFilter, Depends(_read_filter)]


@router.get("/inspections", responses=documented("invalid-request", "internal", "history-unavailable"))
def list_inspections(
    selected: FilterParams,
    history: HistoryDep,
    limit: Annotated[int, Query(ge=1, le=500, description="Inspections per page.")] = 50,
    cursor: Annotated[
        str | None, Query(description="`next_cursor` of the previous page.", pattern=ID_PATTERN)
    ] = None,
) -> schemas.InspectionPage:
    """List inspections, the newest first.

    An inspection answered a moment ago may still be missing; its own address has it at once.
    """
    with history.database.read() as connection:
        rows = queries.find_page(connection, selected, limit + 1, cursor)
    shown = rows[:limit]
    return schemas.InspectionPage(
        inspections=[export.to_summary(row) for row in shown],
        next_cursor=shown[-1].id if len(rows) > limit else None,
    )


def _file(media_type: str, example: str) -> dict[int | str, dict[str, Any]]:
    content = {media_type: {"schema": {"type": "string"}, "example": example}}
    return {200: {"description": "The inspections, newest first.", "content": content}}


_NDJSON: Final = "application/x-ndjson"
_CSV: Final = "text/csv; charset=utf-8"


@router.get(
    "/inspections.ndjson",
    response_class=Response,
    responses={
        **_file(_NDJSON, '{"inspection_id": "0193a6b2-7c1e-7d4f-8a53-5d1d3b7a8c11", "decision": "PASS"}\n'),
        **documented("invalid-request", "internal", "history-unavailable", "queue-full"),
    },
)
def export_ndjson(selected: FilterParams, history: HistoryDep, caller: MaySeeHistory) -> Response:
    """Export the filtered inspections as NDJSON, one JSON object per line.

    At most four exports run at a time, two of them with one key. A reader that takes nothing for 30 seconds,
    or is 30 seconds behind 8 KiB a second, is disconnected.
    """
    return _export(caller, history, selected, export.export_ndjson, _NDJSON)


@router.get(
    "/inspections.csv",
    response_class=Response,
    responses={
        **_file("text/csv", "inspection_id,created,category\r\n"),
        **documented("invalid-request", "internal", "history-unavailable", "queue-full"),
    },
)
def export_csv(selected: FilterParams, history: HistoryDep, caller: MaySeeHistory) -> Response:
    """Export the filtered inspections as CSV for spreadsheets.

    Text that a spreadsheet would run as a formula starts with an apostrophe; NDJSON has it unchanged. The
    limits are those of NDJSON.
    """
    return _export(caller, history, selected, export.export_csv, _CSV)


def _export(
    caller: Caller,
    history: History,
    selected: queries.InspectionFilter,
    write: Callable[[Iterable[Sequence[Row[Any]]]], Iterator[bytes]],
    media_type: str,
) -> Response:
    history.exports.require_free(caller.key_id)
    pages = queries.iterate_pages(history.database, selected)
    # Read the first page before the response starts, so that a database error can still be reported.
    first = next(pages, ())
    name = "inspections.csv" if media_type == _CSV else "inspections.ndjson"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return LimitedStreamingResponse(
        history.exports, caller.key_id, write(chain([first], pages)), headers=headers, media_type=media_type
    )
