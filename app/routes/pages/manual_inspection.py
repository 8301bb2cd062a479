"""The page for inspecting images by hand."""

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.auth.permissions import MayPredict
from app.dependencies import SettingsDep
from app.routes.pages.filter import PageFilter, visible_categories
from app.web.page import PagePart, PageRoute

router = APIRouter(route_class=PageRoute)


@router.get("/inspect", response_class=Response)
async def show_inspect(
    caller: MayPredict, page: PagePart, chosen: PageFilter, settings: SettingsDep
) -> Response:
    """Show a drop zone for images. A script sends them to /v1/models/{category}/predict."""
    categories = await run_in_threadpool(visible_categories, settings.models, caller, active=True)
    return page.render("inspect.html", categories=categories, chosen=chosen, max_bytes=settings.max_bytes)
