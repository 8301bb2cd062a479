"""The API's reference: the OpenAPI document, and Swagger UI to read it and to try it out.

Swagger UI comes with the package fastapi-swagger, so the page needs no internet.
"""

import json
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

from app import immutable
from app.problems import Problem
from app.web.static_files import static_files
from app.web.templating import environment

router = APIRouter(include_in_schema=False)

DOCUMENT: Final = "/openapi.json"
_PACKAGE: Final = "fastapi-swagger"
_MEDIA_TYPES: Final = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


# Plain, not async: writing the document takes a third of a second, in which others want answers.
@router.get(DOCUMENT, response_class=Response)
def get_document(request: Request) -> Response:
    """Give the OpenAPI document."""
    text = json.dumps(request.app.openapi(), ensure_ascii=False, separators=(",", ":"))
    return Response(text, media_type="application/json")


@router.get("/docs", response_class=Response)
async def show_reference() -> Response:
    """Show Swagger UI; a script of ours gives it the document."""
    swagger = f"/static/swagger/{version(_PACKAGE)}"
    text = (
        environment()
        .get_template("reference.html")
        .render(swagger=swagger, static=static_files().address, document=DOCUMENT)
    )
    return HTMLResponse(text, headers={"Content-Security-Policy": _POLICY})


@router.get("/static/swagger/{build}/{name}", response_class=Response)
def get_swagger(request: Request, build: str, name: str) -> Response:
    """Give a file of Swagger UI, which a browser may keep."""
    if name not in _MEDIA_TYPES or build != version(_PACKAGE):
        raise Problem("not-found", "There is no file of this name.")
    tag = f"{build}.{name}"
    if (known := immutable.not_modified(request, tag)) is not None:
        return known
    return Response(_read(name), headers=immutable.headers(tag), media_type=_MEDIA_TYPES[name])


@cache
def _read(name: str) -> bytes:
    return (files("fastapi_swagger") / "resources" / name).read_bytes()
