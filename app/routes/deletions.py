"""Deletions that are held until a person confirms them."""

from typing import Annotated

from fastapi import APIRouter, Path, Request

from app.access import MayAdminister, MaySeeHistory
from app.audit import audited
from app.database import clock
from app.dependencies import DeletionsPart, RetentionPart
from app.history import deletions as guard
from app.openapi import documented
from app.schemas import deletions as schemas

router = APIRouter(prefix="/v1/deletions", tags=["history"])

Kind = Annotated[guard.Kind, Path(description="What deletes, as in /v1/deletions.", examples=["age"])]


@router.get("", responses=documented("internal"))
async def list_deletions(_: MaySeeHistory, deletions: DeletionsPart) -> schemas.HeldDeletions:
    """List the deletions that wait for a person.

    Retention deletes small shares of the history by itself. A pass that would delete more than a tenth of it,
    or files that belong to no inspection, is held: the clock, a setting or the database may be wrong.
    """
    return schemas.HeldDeletions(deletions=[_shown(held) for held in deletions.held()])


@router.post(
    "/{kind}/confirm",
    responses=documented("invalid-request", "conflict", "internal", "history-unavailable"),
)
async def confirm_deletion(
    kind: Kind, request: Request, _: MayAdminister, retention: RetentionPart
) -> schemas.HeldDeletion:
    """Let a held deletion go on. It begins at once, and cannot be undone."""
    async with audited(request, "history.delete", kind) as detail:
        held = retention.confirm(kind)
        detail |= {"count": held.count, "total": held.total}
    return _shown(held)


def _shown(held: guard.HeldDeletion) -> schemas.HeldDeletion:
    return schemas.HeldDeletion(
        kind=held.kind,
        count=held.count,
        total=held.total,
        since=clock.iso(held.since_ms),
        reason=held.reason,
    )
