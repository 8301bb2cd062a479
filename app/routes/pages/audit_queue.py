"""The queue of the audit sample."""

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from app.auth.permissions import MayReview
from app.dependencies import HistoryDep
from app.history import queries
from app.routes.pages.filter import PageFilter
from app.web.page import PagePart, PageRoute

router = APIRouter(route_class=PageRoute)


@router.get("/audit", response_class=Response)
async def show_queue(_: MayReview, page: PagePart, chosen: PageFilter, history: HistoryDep) -> Response:
    """Go to the newest inspection of the audit sample that nobody has reviewed."""
    queue = chosen.audit_queue()

    def find() -> str | None:
        with history.database.read() as connection:
            rows = queries.find_page(connection, queue, 1)
            return rows[0].id if rows else None

    found = await run_in_threadpool(find)
    if found is None:
        return page.render("audit_queue.html")
    return RedirectResponse(f"/inspections/{found}{queue.query_string}", 303)
