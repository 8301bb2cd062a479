"""Inspecting a picture by hand: dropped, chosen, or taken with a phone's camera."""

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.access import MayPredict
from app.dependencies import SettingsPart
from app.routes.pages.categories import categories
from app.routes.pages.chosen import ChosenPart
from app.web.page import PagePart, PageRoute

router = APIRouter(route_class=PageRoute)


@router.get("/inspect", response_class=Response)
async def show_inspect(
    caller: MayPredict, page: PagePart, chosen: ChosenPart, settings: SettingsPart
) -> Response:
    """Show where a picture can be dropped; the script sends it to /v1/models/{category}/predict."""
    there = await run_in_threadpool(categories, settings.models, caller, active=True)
    return page.render("inspect.html", categories=there, chosen=chosen, max_bytes=settings.max_bytes)
