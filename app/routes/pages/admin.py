"""Pages of administrators: keys and uploads of versions, and the audit log."""

from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.auth.permissions import MayAdminister
from app.dependencies import AuditDep, KeyringDep, KeysDep, SettingsDep
from app.routes.pages.filter import visible_categories
from app.schemas.access import Role
from app.web.page import PagePart, PageRoute

router = APIRouter(route_class=PageRoute)

_ENTRIES: Final = 50  # on a page of the audit log


@router.get("/admin", response_class=Response)
async def show_keys(
    caller: MayAdminister, page: PagePart, settings: SettingsDep, keys: KeysDep, keyring: KeyringDep
) -> Response:
    """Show the keys, and forms to create one and to upload a version. Scripts use the API."""
    found = await run_in_threadpool(keys.list)
    return page.render(
        "admin.html",
        keys=[key.to_schema() for key in reversed(found)],
        is_first=not keyring.required,
        roles=list(Role) if keyring.required else [Role.ADMIN],
        categories=await run_in_threadpool(visible_categories, settings.models, caller),
    )


@router.get("/admin/log", response_class=Response)
async def show_log(
    _: MayAdminister,
    page: PagePart,
    audit: AuditDep,
    action: Annotated[str, Query(max_length=64)] = "",
    target: Annotated[str, Query(max_length=256)] = "",
    before: Annotated[str | None, Query(pattern="^[0-9]{1,18}$")] = None,
) -> Response:
    """Show a page of the audit log, the latest entries first, of an action or of a target."""
    chosen = (action or None, target or None)
    upto = None if before is None else int(before)
    entries = await run_in_threadpool(audit.page, _ENTRIES + 1, upto, *chosen)
    shown = entries[:_ENTRIES]
    query = {"action": action, "target": target, "before": shown[-1].number if shown else ""}
    return page.render(
        "audit_log.html",
        entries=shown,
        actions=await run_in_threadpool(audit.actions),
        action=action,
        target=target,
        is_first=before is None,
        older=urlencode(query) if len(entries) > _ENTRIES else None,
    )
