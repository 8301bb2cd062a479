"""Style sheets and scripts."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app import immutable
from app.problems import Problem
from app.web.static_files import static_files

router = APIRouter()


@router.get("/static/{build}/{name}", response_class=Response)
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
