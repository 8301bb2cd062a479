"""A misspelt query parameter is refused: ignored, it would export everything, or keep what should not be.

So is one that comes twice where one value counts, and what is not UTF-8: different parts would become one.
"""

from typing import Final
from urllib.parse import unquote_to_bytes

from fastapi import Request
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from app.errors.problems import Problem

# By the unique id of a route, its query parameters, and whether each may come several times.
_known: Final[dict[str, dict[str, bool]]] = {}


async def require_known_query(request: Request) -> None:
    """A dependency of routes: every query parameter is one that the route, or what it depends on, takes.

    Raises:
        Problem: invalid-request, also where one comes twice of which one is taken, or is not UTF-8.
    """
    if not request.query_params:
        return
    try:
        unquote_to_bytes(request.scope["query_string"]).decode()
    except UnicodeDecodeError as error:
        raise Problem("invalid-request", "the query: must be UTF-8, percent-encoded") from error
    route: APIRoute = request.scope["route"]
    if route.unique_id not in _known:
        _known[route.unique_id] = _parameters(route)
    known = _known[route.unique_id]
    strange = sorted(set(request.query_params) - set(known))
    if strange:
        raise Problem(
            "invalid-request",
            f"query parameter {strange[0][:64]!r}: there is none of this name here; there are: "
            f"{', '.join(sorted(known)) or 'none'}",
        )
    names = [name for name, _ in request.query_params.multi_items()]
    for name, several in known.items():
        if names.count(name) > 1 and not several:
            raise Problem("invalid-request", f"query parameter {name}: must come once, with one value")


def _parameters(route: APIRoute) -> dict[str, bool]:
    """As FastAPI describes them. Of one route: the whole document would take a third of a second."""
    [operations] = get_openapi(title="", version="", routes=[route])["paths"].values()
    [operation] = operations.values()
    parameters = [one for one in operation.get("parameters", ()) if one["in"] == "query"]
    return {one["name"]: "array" in str(one["schema"]) for one in parameters}
