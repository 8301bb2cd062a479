"""The audit log of administrative actions."""

from typing import Annotated

from fastapi import APIRouter, Query

from app.auth.permissions import MayAdminister
from app.dependencies import AuditDep
from app.routes.openapi import documented
from app.schemas import access as schemas

router = APIRouter(prefix="/v1/audit", tags=["audit"])


@router.get("", responses=documented("invalid-request", "internal", "history-unavailable"))
def list_entries(
    _: MayAdminister,
    audit: AuditDep,
    action: Annotated[
        str | None, Query(description="Only this action.", max_length=64, examples=["model.activate"])
    ] = None,
    target: Annotated[
        str | None,
        Query(description="Only this target.", max_length=256, examples=["bottle/20261125T011500-3f9a2c"]),
    ] = None,
    limit: Annotated[int, Query(description="Entries per page.", ge=1, le=500)] = 100,
    cursor: Annotated[
        str | None,
        Query(description="`next_cursor` of the previous page.", pattern="^[0-9]{1,18}$", examples=["4711"]),
    ] = None,
) -> schemas.AuditPage:
    """List administrative actions, the latest first."""
    entries = audit.page(limit + 1, None if cursor is None else int(cursor), action, target)
    shown = entries[:limit]
    return schemas.AuditPage(
        entries=shown, next_cursor=str(shown[-1].number) if len(entries) > limit else None
    )
