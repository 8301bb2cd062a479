"""Static files of the pages."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.errors.problems import Problem
from app.http import immutable
from app.web.static_files import static_files

router = APIRouter()


@router.get("/static/{build}/{name}", response_class=Response)
async def get_static(request: Request, build: str, name: str) -> Response:
    """Return a file of the current build. The address of another build gets it without caching headers."""
    current = static_files()
    file = current.files.get(name)
    if file is None:
        raise Problem("not-found", "There is no file of this name.")
    if build != current.build:
        return Response(file.content, media_type=file.media_type)
    tag = f"{build}.{name}"
    if (known := immutable.not_modified(request, tag)) is not None:
        return known
    return Response(file.content, headers=immutable.headers(tag), media_type=file.media_type)
