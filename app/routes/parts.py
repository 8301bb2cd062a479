"""Parts: the decision on a part of which several images were inspected."""

from collections.abc import Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query
from sqlalchemy import Row
from starlette.concurrency import run_in_threadpool

from app import forms
from app.access import MaySeeResult
from app.dependencies import HistoryPart
from app.history import export, queries
from app.history.rates import DECISIONS
from app.openapi import documented
from app.problems import Problem
from app.schemas import history as schemas
from app.schemas.predict import Decision
from app.verdict import worst

router = APIRouter(prefix="/v1/parts", tags=["history"])

_MOST_IMAGES: Final = 500
_MOST_EXPECTED: Final = 1000


@router.get(
    "/{part_id:path}",
    responses=documented("invalid-request", "unknown-inspection", "internal", "history-unavailable"),
)
async def get_part(
    part_id: Annotated[
        str,
        Path(
            description="`part_id` of the inspections, percent-encoded.",
            max_length=forms.MAX_TEXT,
            pattern=forms.TEXT_PATTERN,
            examples=["P-000123"],
        ),
    ],
    caller: MaySeeResult,
    history: HistoryPart,
    expect: Annotated[
        int | None,
        Query(
            ge=1,
            le=_MOST_EXPECTED,
            description="How many images the part has at least, such as one by each camera. As long as fewer "
            "are kept and none is a REJECT, `decision` is null.",
            examples=[4],
        ),
    ] = None,
) -> schemas.Part:
    """Give the decision on a part: the worst of its images', however recently they were answered.

    Images count that were inspected and kept. One that could not be inspected, or was sent with store=false,
    leaves no trace here, so a part of which a view is missing may be a PASS: say with `expect` how many there
    are to be. Of a key that is for some categories, images of the others do not count either: ask by one that
    is for all categories of the part.
    """

    def find() -> tuple[dict[Decision, int], Sequence[Row[Any]]]:
        wanted = queries.Filter(part_id=part_id, categories=caller.categories)
        with history.database.read() as connection:
            counts = queries.part_decisions(connection, part_id, caller.categories)
            return counts, queries.page(connection, wanted, _MOST_IMAGES)

    await history.settled()
    counts, rows = await run_in_threadpool(find)
    if not counts:
        raise Problem("unknown-inspection", "No inspection that is kept has this part_id.")
    decision = worst(counts)
    # Whatever a view that is missing shows, a part that is rejected stays so.
    unknown = expect is not None and sum(counts.values()) < expect and decision != "REJECT"
    return schemas.Part(
        part_id=part_id,
        decision=None if unknown else decision,
        images={one: counts.get(one, 0) for one in DECISIONS},
        inspections=[export.summary(row) for row in rows],
    )
