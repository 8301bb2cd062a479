"""The history: finding inspections, and taking them out as files."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query
from sqlalchemy import Row
from starlette.responses import Response

from app.access import Caller, MaySeeHistory
from app.database import clock
from app.dependencies import HistoryPart
from app.history import export, queries
from app.history.history import History
from app.openapi import documented
from app.routes.known_inspection import ID_PATTERN, KnownInspection
from app.routes.parameters import From, To, text_query
from app.schemas import history as schemas
from app.schemas.predict import Decision
from app.sending import LimitedStreamingResponse

router = APIRouter(prefix="/v1/inspections", tags=["history"])


async def _filter(
    caller: MaySeeHistory,
    category: Annotated[str | None, text_query("Of this category.", "bottle")] = None,
    decision: Annotated[Decision | None, Query(description="With this decision.")] = None,
    part_id: Annotated[str | None, text_query("Of this part.", "P-000123")] = None,
    station: Annotated[str | None, text_query("From this station.", "line-3")] = None,
    verdict: Annotated[
        schemas.Verdict | None, Query(description="Whose latest review has this verdict.")
    ] = None,
    made_from: From = None,
    made_before: To = None,
) -> queries.Filter:
    if category is not None:
        caller.require_category(category)
    return queries.Filter(
        category=category,
        decision=decision,
        part_id=part_id,
        station=station,
        verdict=verdict,
        from_ms=None if made_from is None else clock.from_datetime(made_from),
        to_ms=None if made_before is None else clock.from_datetime(made_before),
        categories=caller.categories,
    )


Wanted = Annotated[queries.Filter, Depends(_filter)]


@router.get("", responses=documented("invalid-request", "internal", "history-unavailable"))
def list_inspections(
    wanted: Wanted,
    history: HistoryPart,
    limit: Annotated[int, Query(ge=1, le=500, description="Inspections on a page.")] = 50,
    cursor: Annotated[
        str | None, Query(description="`next_cursor` of the page before.", pattern=ID_PATTERN)
    ] = None,
) -> schemas.InspectionPage:
    """List inspections, newest first.

    One that was answered a moment ago may be missing still; by its id it is found at once.
    """
    with history.database.read() as connection:
        rows = queries.page(connection, wanted, limit + 1, cursor)
    shown = rows[:limit]
    return schemas.InspectionPage(
        inspections=[export.summary(row) for row in shown],
        next_cursor=shown[-1].id if len(rows) > limit else None,
    )


def _file(media_type: str, example: str) -> dict[int | str, dict[str, Any]]:
    content = {media_type: {"schema": {"type": "string"}, "example": example}}
    return {200: {"description": "The inspections, newest first.", "content": content}}


_NDJSON: Final = "application/x-ndjson"
_CSV: Final = "text/csv; charset=utf-8"


@router.get(
    ".ndjson",
    response_class=Response,
    responses={
        **_file(_NDJSON, '{"inspection_id": "0193a6b2-7c1e-7d4f-8a53-5d1d3b7a8c11", "decision": "PASS"}\n'),
        **documented("invalid-request", "internal", "history-unavailable", "queue-full"),
    },
)
def export_ndjson(wanted: Wanted, history: HistoryPart, caller: MaySeeHistory) -> Response:
    """Export all inspections that a filter lets through, each as in the list, one JSON object a line.

    Four exports of either kind are sent at a time, two of them with one key. A reader that takes nothing for
    30 seconds, or is 30 seconds behind 256 KiB a second, is left.
    """
    return _export(caller, history, wanted, export.ndjson, _NDJSON)


@router.get(
    ".csv",
    response_class=Response,
    responses={
        **_file("text/csv", "inspection_id,created,category\r\n"),
        **documented("invalid-request", "internal", "history-unavailable", "queue-full"),
    },
)
def export_csv(wanted: Wanted, history: HistoryPart, caller: MaySeeHistory) -> Response:
    """Export all inspections that a filter lets through as a table for spreadsheets.

    Text that a spreadsheet would run as a formula begins with an apostrophe; NDJSON has it unchanged. The
    limits are those of NDJSON.
    """
    return _export(caller, history, wanted, export.table, _CSV)


def _export(
    caller: Caller,
    history: History,
    wanted: queries.Filter,
    write: Callable[[Iterable[Sequence[Row[Any]]]], Iterator[bytes]],
    media_type: str,
) -> Response:
    history.exports.require_free(caller.key_id)
    pages = queries.pages(history.database, wanted)
    # The first page now: where the database does not answer, that can still be said.
    first = next(pages, ())
    name = "inspections.csv" if media_type == _CSV else "inspections.ndjson"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return LimitedStreamingResponse(
        history.exports,
        caller.key_id,
        write(chain([first], pages)),
        headers=headers,
        media_type=media_type,
    )


@router.get(
    "/{inspection_id}",
    response_model=schemas.KeptInspection,
    responses=documented("unknown-inspection", "internal", "history-unavailable"),
)
async def get_inspection(row: KnownInspection) -> Response:
    """Give the answer as it was given, and what has been said of it since."""
    answer = json.loads(row.answer)
    answer |= {
        "created": clock.iso(row.created_ms),
        "key_id": row.key_id,
        "request_id": row.request_id,
        "has_pictures": row.has_pictures,
        "review": {"revision": row.review_revision, "verdict": row.verdict},
    }
    return Response(json.dumps(answer), media_type="application/json")
