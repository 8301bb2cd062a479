"""The decision on a part from all its images."""

from collections.abc import Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query
from sqlalchemy import Row
from starlette.concurrency import run_in_threadpool

from app.auth.permissions import MaySeeResult
from app.dependencies import HistoryDep
from app.errors.problems import Problem
from app.history import browsing, export, queries
from app.inspection.decision import worst_decision
from app.routes.openapi import documented
from app.schemas import history as schemas
from app.schemas.predict import Decision
from app.schemas.texts import MAX_TEXT, TEXT_PATTERN

router = APIRouter(prefix="/v1/parts", tags=["history"])

_MAX_LISTED_IMAGES: Final = 500


@router.get(
    "/{part_id:path}",
    responses=documented("invalid-request", "unknown-inspection", "internal", "history-unavailable"),
)
async def get_part(
    part_id: Annotated[
        str,
        Path(
            description="`part_id` of the inspections, percent-encoded.",
            max_length=MAX_TEXT,
            pattern=TEXT_PATTERN,
            examples=["P-000123"],
        ),
    ],
    caller: MaySeeResult,
    history: HistoryDep,
    expect: Annotated[
        int | None,
        Query(
            ge=1,
            le=1000,
            description="Least number of images of the part, such as one per camera. While fewer are stored "
            "and none is a REJECT, `decision` is null.",
            examples=[4],
        ),
    ] = None,
) -> schemas.Part:
    """Return the decision on a part: the worst decision of its images.

    Only stored inspections count, the latest included. An image that failed or was sent with store=false is
    missing here, so a part may be a PASS without one of its views: give the number of views as `expect`. With
    a key for some categories, images of other categories do not count.
    """

    def find() -> tuple[dict[Decision, int], Sequence[Row[Any]]]:
        selected = queries.InspectionFilter(part_id=part_id, categories=caller.categories)
        with history.database.read() as connection:
            counts = browsing.count_decisions(connection, selected)
            return counts, queries.find_page(connection, selected, _MAX_LISTED_IMAGES)

    await history.wait_until_filed()
    counts, rows = await run_in_threadpool(find)
    if not rows:
        raise Problem("unknown-inspection", "No stored inspection has this part_id.")
    decision = worst_decision(name for name, count in counts.items() if count)
    # A missing view cannot change a REJECT.
    is_open = expect is not None and sum(counts.values()) < expect and decision != "REJECT"
    return schemas.Part(
        part_id=part_id,
        decision=None if is_open else decision,
        images=counts,
        inspections=[export.to_summary(row) for row in rows],
    )
