"""Strict query parameters: unknown, repeated and badly encoded ones are refused.

An ignored misspelt filter would export everything, or an ignored store=false would store an image. Texts that
are not UTF-8 would make different part ids equal.
"""

from typing import Final
from urllib.parse import unquote_to_bytes

from fastapi import Request
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from app.errors.problems import Problem

# By unique id of a route: its query parameters, and True for those that may be repeated.
_known: Final[dict[str, dict[str, bool]]] = {}


async def require_known_query(request: Request) -> None:
    """Refuse query parameters that neither the route nor its dependencies take. A dependency of routes.

    Raises:
        Problem: invalid-request; also for a repeated single value, and for a query that is not UTF-8.
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
    unknown = sorted(set(request.query_params) - set(known))
    if unknown:
        raise Problem(
            "invalid-request",
            f"query parameter {unknown[0][:64]!r} is unknown; this route takes: "
            f"{', '.join(sorted(known)) or 'none'}",
        )
    names = [name for name, _ in request.query_params.multi_items()]
    for name, is_repeatable in known.items():
        if names.count(name) > 1 and not is_repeatable:
            raise Problem("invalid-request", f"query parameter {name}: must come once, with one value")


def _parameters(route: APIRoute) -> dict[str, bool]:
    """Read a route's query parameters from FastAPI. The whole document would take a third of a second."""
    [operations] = get_openapi(title="", version="", routes=[route])["paths"].values()
    [operation] = operations.values()
    parameters = [item for item in operation.get("parameters", ()) if item["in"] == "query"]
    return {item["name"]: "array" in str(item["schema"]) for item in parameters}
