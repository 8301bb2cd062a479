"""Responses that never change under their address: entity tags and caching headers."""

from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

# Only the browser that was allowed to see it may cache it, no proxy.
_CACHE_CONTROL: Final = "private, max-age=31536000, immutable"

# For the OpenAPI document: the headers, and the response without a body.
HEADERS: Final[Mapping[str, Any]] = {
    "ETag": {"description": "Names the content, for If-None-Match.", "schema": {"type": "string"}}
}
NOT_MODIFIED: Final[Mapping[str, Any]] = {
    "description": "If-None-Match names the content: the client has it already.",
    "headers": dict(HEADERS),
}


def headers(tag: str) -> dict[str, str]:
    """Make the headers of a response whose content has a tag."""
    # `Vary` binds the browser's disk cache to one session: the response is not shown after logout or with
    # another key. A tab's memory ends with the tab.
    return {"ETag": f'"{tag}"', "Cache-Control": _CACHE_CONTROL, "Vary": "Cookie"}


def not_modified(request: Request, tag: str) -> Response | None:
    """Make a 304 response if the client has the content (RFC 9110, section 13.1.2); None otherwise."""
    known = request.headers.get("if-none-match", "").split(",")
    if {entry.strip().removeprefix("W/") for entry in known} & {"*", f'"{tag}"'}:
        return Response(status_code=304, headers=headers(tag))
    return None
