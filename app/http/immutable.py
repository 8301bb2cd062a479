"""Answers that never change under their address: entity tags, and caches that need not ask again."""

from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

# Kept by the browser that was allowed to see it, and by nothing in between.
_CACHE_CONTROL: Final = "private, max-age=31536000, immutable"

# For the OpenAPI document: what comes with the answer, and the answer that has no body.
HEADERS: Final[Mapping[str, Any]] = {
    "ETag": {"description": "Names the content, for If-None-Match.", "schema": {"type": "string"}}
}
NOT_MODIFIED: Final[Mapping[str, Any]] = {
    "description": "If-None-Match names the content: the client has it already.",
    "headers": dict(HEADERS),
}


def headers(tag: str) -> dict[str, str]:
    """The headers of an answer whose content a tag names."""
    # By `Vary` what lies on a browser's disk is for the same session alone, and is not shown after the logout
    # or to the next key. What a tab has in memory goes with the tab.
    return {"ETag": f'"{tag}"', "Cache-Control": _CACHE_CONTROL, "Vary": "Cookie"}


def not_modified(request: Request, tag: str) -> Response | None:
    """The answer to a client that has the content of a tag (RFC 9110, section 13.1.2); None to another."""
    known = request.headers.get("if-none-match", "").split(",")
    if {one.strip().removeprefix("W/") for one in known} & {"*", f'"{tag}"'}:
        return Response(status_code=304, headers=headers(tag))
    return None
