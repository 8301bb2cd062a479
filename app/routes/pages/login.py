"""The login page."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from app.dependencies import KeyringDep
from app.middleware import login_redirect
from app.middleware.authentication import LOGIN
from app.web.page import PagePart, PageRoute

router = APIRouter(route_class=PageRoute)


@router.get(LOGIN, response_class=Response)
async def show_login(
    page: PagePart, keyring: KeyringDep, next_page: Annotated[str | None, Query(alias="next")] = None
) -> Response:
    """Ask for a key. A script sends it to POST /login, then opens the next page."""
    return page.render("login.html", next_page=login_redirect.local(next_page), required=keyring.required)
