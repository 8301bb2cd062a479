"""A misspelt query parameter is refused: ignored, it would export everything, or keep what should not be.

So is one that comes twice where one value counts, and what is not UTF-8: different parts would become one.
"""

from collections.abc import Iterator
from typing import Any, get_args, get_origin
from urllib.parse import unquote_to_bytes

from fastapi import Request
from fastapi.dependencies.models import Dependant

from app.problems import Problem


async def require_known_query(request: Request) -> None:
    """A dependency of routes: every query parameter is one that the route, or what it depends on, takes.

    Raises:
        Problem: invalid-request, also where one comes twice of which one is taken, or is not UTF-8.
    """
    if not request.query_params:
        return
    require_utf8("the query", request.scope["query_string"])
    known = dict(_names(request.scope["route"].dependant))
    strange = sorted(set(request.query_params) - set(known))
    if strange:
        raise Problem(
            "invalid-request",
            f"query parameter {strange[0][:64]!r}: there is none of this name here; there are: "
            f"{', '.join(sorted(known)) or 'none'}",
        )
    seen: set[str] = set()
    for name, _ in request.query_params.multi_items():
        if name in seen and not _is_list(known[name]):
            raise Problem("invalid-request", f"query parameter {name}: must come once, with one value")
        seen.add(name)


def require_utf8(where: str, encoded: bytes) -> None:
    """Refuse what is percent-encoded and not UTF-8, which is read as a text with marks in its place.

    Args:
        where: the name of it, for the problem.
        encoded: as it came.

    Raises:
        Problem: invalid-request.
    """
    try:
        unquote_to_bytes(encoded).decode()
    except UnicodeDecodeError as error:
        raise Problem("invalid-request", f"{where}: must be UTF-8, percent-encoded") from error


def _names(dependant: Dependant) -> Iterator[tuple[str, Any]]:
    """Query parameters of a route, or of what it depends on, with types: those that its validators know.

    Not from the OpenAPI document, which takes a third of a second to write and may never be asked for.
    """
    for parameter in dependant.query_params:
        yield parameter.alias, parameter.field_info.annotation
    for one in dependant.dependencies:
        yield from _names(one)


def _is_list(annotation: Any) -> bool:
    """Whether a parameter of this type may come several times."""
    return any(get_origin(one) is list for one in (annotation, *get_args(annotation)))
