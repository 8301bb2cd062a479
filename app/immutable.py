"""Answers that never change under their address: entity tags, and caches that need not ask again."""

import re
from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

# Kept by the browser that was allowed to see it, and by nothing in between.
_CACHE_CONTROL: Final = "private, max-age=31536000, immutable"
_TAG: Final = re.compile(r'(?:W/)?("[^"]*")')

# For the OpenAPI document: what comes with the answer, and the answer that has no body.
HEADERS: Final[Mapping[str, Any]] = {
    "ETag": {"description": "Names the content, for If-None-Match.", "schema": {"type": "string"}},
    "Cache-Control": {"description": "The content never changes.", "schema": {"type": "string"}},
    "Vary": {"description": "Kept for the same session alone.", "schema": {"type": "string"}},
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


def is_known(request: Request, tag: str) -> bool:
    """Whether the client has the content already that a tag names (RFC 9110, section 13.1.2)."""
    known = ", ".join(request.headers.getlist("if-none-match"))  # of several lines one list (section 5.3)
    return known.strip() == "*" or f'"{tag}"' in _TAG.findall(known)


def not_modified(request: Request, tag: str) -> Response | None:
    """The answer to a client that has the content already; None to another one."""
    if is_known(request, tag):
        return Response(status_code=304, headers=headers(tag))
    return None
