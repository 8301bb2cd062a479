"""Pages without a history: the login, and inspecting an image by hand; and the files that all pages load."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.auth.access import MayPredict
from app.dependencies import KeyringDep, SettingsDep
from app.errors.problems import Problem
from app.http import immutable
from app.middleware import login_redirect
from app.middleware.guard import LOGIN
from app.routes.pages.filter import PageFilter, categories
from app.web.page import PagePart, PageRoute
from app.web.static_files import static_files

router = APIRouter(route_class=PageRoute)
_files = APIRouter()


@router.get(LOGIN, response_class=Response)
async def show_login(
    page: PagePart, keyring: KeyringDep, wanted: Annotated[str | None, Query(alias="next")] = None
) -> Response:
    """Ask for a key; a script sends it to POST /login and goes on to the page that was wanted."""
    return page.render("login.html", wanted=login_redirect.local(wanted), required=keyring.required)


@router.get("/inspect", response_class=Response)
async def show_inspect(
    caller: MayPredict, page: PagePart, chosen: PageFilter, settings: SettingsDep
) -> Response:
    """Show where a picture can be dropped; the script sends it to /v1/models/{category}/predict."""
    there = await run_in_threadpool(categories, settings.models, caller, active=True)
    return page.render("inspect.html", categories=there, chosen=chosen, max_bytes=settings.max_bytes)


@_files.get("/static/{build}/{name}", response_class=Response)
async def get_static(request: Request, build: str, name: str) -> Response:
    """Give a file. One of another build is today's, which a browser must not keep under that address."""
    there = static_files()
    file = there.files.get(name)
    if file is None:
        raise Problem("not-found", "There is no file of this name.")
    if build != there.build:
        return Response(file.content, media_type=file.media_type)
    tag = f"{build}.{name}"
    if (known := immutable.not_modified(request, tag)) is not None:
        return known
    return Response(file.content, headers=immutable.headers(tag), media_type=file.media_type)


router.include_router(_files)
