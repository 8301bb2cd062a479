"""A misspelt query parameter is refused: ignored, it would export everything, or keep what should not be."""

from fastapi import Request

from app.problems import Problem


async def expect_known_query(request: Request) -> None:
    """A dependency of routes: every query parameter is one that the OpenAPI document has for the operation.

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
    path, method = request.scope["route"].path_format, request.method.lower()
    parameters = request.app.openapi()["paths"][path][method].get("parameters", ())
    return frozenset(one["name"] for one in parameters if one.get("in") == "query")
