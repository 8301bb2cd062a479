"""Deletions that are held until a person confirms them."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Request

from app.auth.audit import audited
from app.auth.permissions import MayAdminister, MaySeeHistory
from app.dependencies import DeletionsDep, RetentionDep
from app.routes.openapi import documented
from app.schemas.deletions import DeletionKind, HeldDeletion, HeldDeletions

router = APIRouter(prefix="/v1/deletions", tags=["history"])

Kind = Annotated[DeletionKind, Path(description="`kind` of a deletion in /v1/deletions.", examples=["age"])]


@router.get("", responses=documented("internal"))
async def list_deletions(_: MaySeeHistory, deletions: DeletionsDep) -> HeldDeletions:
    """List the deletions that wait for confirmation.

    Retention deletes expired inspections by itself. It holds a deletion that only a jump of the clock or a
    setting explains, and files that belong to no inspection, until a person confirms it.
    """
    return HeldDeletions(deletions=deletions.held())


@router.post(
    "/{kind}/confirm", responses=documented("invalid-request", "conflict", "internal", "history-unavailable")
)
async def confirm_deletion(
    kind: Kind, request: Request, _: MayAdminister, retention: RetentionDep
) -> HeldDeletion:
    """Confirm a held deletion. It starts at once and cannot be undone."""
    async with audited(request, "history.delete", kind) as detail:
        held = await asyncio.to_thread(retention.confirm, kind)
        detail |= {"count": held.count, "total": held.total}
    return held
