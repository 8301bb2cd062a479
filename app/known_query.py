"""A misspelt query parameter is refused: ignored, it would export everything, or keep what should not be."""

from collections.abc import Iterator

from fastapi import Request
from fastapi.dependencies.models import Dependant

from app.problems import Problem


async def expect_known_query(request: Request) -> None:
    """A dependency of routes: every query parameter is one that the route, or what it depends on, takes.

    Raises:
        Problem: invalid-request.
    """
    if not request.query_params:
        return
    known = _known(request)
    strange = sorted(set(request.query_params) - known)
    if strange:
        raise Problem(
            "invalid-request",
            f"query parameter {strange[0][:64]!r}: there is none of this name here; there are: "
            f"{', '.join(sorted(known)) or 'none'}",
        )


def _known(request: Request) -> frozenset[str]:
    return frozenset(_names(request.scope["route"].dependant))


def _names(dependant: Dependant) -> Iterator[str]:
    """Query parameters of a route, or of what it depends on: those that its validators know.

    Not from the OpenAPI document, which takes a third of a second to write and may never be asked for.
    """
    for parameter in dependant.query_params:
        yield parameter.alias
    for one in dependant.dependencies:
        yield from _names(one)
