"""Reviews: what people say of inspected parts."""

from fastapi import APIRouter

from app.access import MayReview, MaySeeHistory
from app.dependencies import HistoryPart
from app.history import reviews
from app.openapi import documented
from app.routes.known_inspection import KnownInspection
from app.schemas import review as schemas

router = APIRouter(prefix="/v1/inspections/{inspection_id}/reviews", tags=["history"])


@router.post(
    "",
    status_code=201,
    responses=documented(
        "invalid-request", "unknown-inspection", "conflict", "internal", "history-unavailable"
    ),
)
def add_review(
    new: schemas.NewReview, caller: MayReview, row: KnownInspection, history: HistoryPart
) -> schemas.Review:
    """Say whether a part is good. The latest review counts; earlier ones stay on record.

    An inspection that was reviewed is kept for good, with its picture. If somebody else was faster, the
    answer is 409: read the reviews before adding another.
    """
    return reviews.add(
        history.database, caller, row.id, new.verdict, new.expected_revision, new.reviewer, new.note
    )


@router.get("", responses=documented("unknown-inspection", "internal", "history-unavailable"))
def list_reviews(_: MaySeeHistory, row: KnownInspection, history: HistoryPart) -> schemas.ReviewList:
    """List all reviews of an inspection, the first one first."""
    return schemas.ReviewList(reviews=reviews.of(history.database, row.id))
