"""Addresses of pages, and the way to the login for whoever is not logged in."""

import re
from typing import Final
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse, Response
from starlette.types import Scope

STATIC: Final = "/static/"
_PAGES: Final = re.compile(r"/(|(inspect|inspections|scores|models|report)(/.*)?)", re.DOTALL)


def to_login(scope: Scope, login: str) -> Response | None:
    """Redirect a browser that asked for a page to the login; None for anybody else.

    Args:
        scope: of a request without a valid key or session.
        login: the login page's path.
    """
    asks = scope["method"] == "GET" and _PAGES.fullmatch(scope["path"])
    if not asks or "text/html" not in ", ".join(Headers(scope=scope).getlist("accept")):
        return None
    wanted = scope["raw_path"].decode("latin-1")
    if scope["query_string"]:
        wanted += "?" + scope["query_string"].decode("latin-1")
    return RedirectResponse(f"{login}?next={quote(wanted, safe='/')}", 303)


def local(address: str | None) -> str:
    """Return an address if it is one of our pages, and the first page otherwise."""
    if not address or not address.isascii() or not address.isprintable() or "\\" in address:
        return "/"
    try:
        parts = urlsplit(address)
    except ValueError:  # of brackets, which only addresses of machines have there
        return "/"
    # "//host/" is another machine's.
    if parts.scheme or parts.netloc or address.startswith("//") or not _PAGES.fullmatch(parts.path):
        return "/"
    return address
