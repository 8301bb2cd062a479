"""The page where a browser exchanges a key for a session."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from app.dependencies import KeyringPart
from app.guard import LOGIN
from app.web import entrance
from app.web.page import PagePart, PageRoute

router = APIRouter(route_class=PageRoute)


@router.get(LOGIN, response_class=Response)
async def show_login(
    page: PagePart, keyring: KeyringPart, wanted: Annotated[str | None, Query(alias="next")] = None
) -> Response:
    """Ask for a key; a script sends it to POST /login and goes on to the page that was wanted."""
    return page.render("login.html", wanted=entrance.local(wanted), required=keyring.required)
