"""API reference: the OpenAPI document, and Swagger UI to read it and try it out.

Swagger UI comes with the package fastapi-swagger, so the page needs no internet.
"""

import json
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

from app.web.static_files import static_files
from app.web.templating import environment

router = APIRouter(include_in_schema=False)

DOCUMENT: Final = "/openapi.json"
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


# Plain, not async: writing the document takes a third of a second and would block other requests.
@router.get(DOCUMENT, response_class=Response)
def get_document(request: Request) -> Response:
    """Return the OpenAPI document."""
    text = json.dumps(request.app.openapi(), ensure_ascii=False, separators=(",", ":"))
    return Response(text, media_type="application/json")


@router.get("/docs", response_class=Response)
async def show_reference() -> Response:
    """Show Swagger UI."""
    template = environment().get_template("reference.html")
    text = template.render(static=static_files().address, document=DOCUMENT)
    return HTMLResponse(text, headers={"Content-Security-Policy": _POLICY})
