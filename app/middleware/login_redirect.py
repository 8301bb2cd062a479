"""Redirection of browsers without a session to the login page."""

import re
from typing import Final
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse, Response
from starlette.types import Scope

STATIC: Final = "/static/"
# Printable ASCII; without backslashes, which browsers take for slashes.
_PAGE: Final = re.compile(
    r"/((inspect|inspections|search|audit|scores|products|models|report|admin)(/[!->@-\[\]-~]*)?)?"
    r"(\?[!-\[\]-~]*)?"
)


def to_login(scope: Scope, login: str) -> Response | None:
    """Redirect a browser that asks for a page to the login page; return None for other clients."""
    if scope["method"] != "GET" or "text/html" not in ", ".join(Headers(scope=scope).getlist("accept")):
        return None
    address = b"?".join(filter(None, (scope["raw_path"], scope["query_string"]))).decode("latin-1")
    if not _PAGE.fullmatch(address):
        return None
    return RedirectResponse(f"{login}?next={quote(address, safe='/')}", 303)


def local(address: str | None) -> str:
    """Return an address if it is one of our pages, otherwise the start page."""
    return address if address and _PAGE.fullmatch(address) else "/"
