"""Errors on the wire: every one is answered as RFC 9457 problem details, with a type of the table.

Clients of the Open Inference Protocol, under /v2, read `{"error": ...}` instead. An answer never holds a path
of this machine, a stack trace or a library's message: the request id leads to the log, which does.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from app.database.engine import DatabaseUnavailable
from app.errors.problems import TYPES, Problem, ProblemName
from app.schemas.problem import ProblemDetails

logger = logging.getLogger("flowgauge.problems")

MEDIA_TYPE: Final = "application/problem+json"
OPEN_INFERENCE_PREFIX: Final = "/v2"
_MOST_REASONS: Final = 8  # for which a request is refused, that are told
# What a 401 must say (RFC 9110, section 11.6.1).
CHALLENGE: Final = 'Bearer realm="FlowGauge"'


def problem_details(request: Request, name: ProblemName, detail: str) -> ProblemDetails:
    """Build the body of a problem of a request, or of one of its images; log and metrics name it too."""
    kind = TYPES[name]
    request.state.problem = name
    return ProblemDetails(
        type=name,
        title=kind.title,
        status=kind.status,
        detail=detail,
        instance=request.scope["raw_path"].decode("latin-1"),
        request_id=request.state.request_id,
    )


def is_open_inference(path: str) -> bool:
    """Whether the clients of a path read errors of the Open Inference Protocol."""
    return path == OPEN_INFERENCE_PREFIX or path.startswith(f"{OPEN_INFERENCE_PREFIX}/")


def open_inference_error(problem: ProblemDetails) -> dict[str, str]:
    """The body of an error of the Open Inference Protocol."""
    return {"error": f"{problem.detail} ({problem.type})"}


def problem_response(
    request: Request, problem: Problem, headers: Mapping[str, str] | None = None
) -> Response:
    """Build the response to a request: problem+json, or an error of the Open Inference Protocol."""
    kind = TYPES[problem.name]
    body = problem_details(request, problem.name, problem.detail)
    all_headers = dict(headers or {})
    if (after := problem.retry_after or kind.retry_after) is not None:
        all_headers["Retry-After"] = str(after)
    if kind.status == 401:
        all_headers["WWW-Authenticate"] = CHALLENGE
    if is_open_inference(request.scope["path"]):
        return JSONResponse(open_inference_error(body), kind.status, all_headers)
    return JSONResponse(body.model_dump(), kind.status, all_headers, MEDIA_TYPE)


def to_problem(error: Exception) -> Problem:
    """What to answer when an error, whichever, ends a request or one of its images; logs what that hides."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, DatabaseUnavailable):
        logger.warning("%s", error)
        return Problem(
            "history-unavailable", "The database does not answer, or takes no more; try again later."
        )
    logger.error("a request failed", exc_info=error)
    return Problem("internal", "This should not happen. The server's log has more under the request id.")


def install_handlers(app: FastAPI, page: Callable[[Request, Problem], Response]) -> None:
    """Answer every error that the routes and the router raise with a problem.

    Args:
        app: the service.
        page: shows a problem to who asks for an address that is mistyped, with a browser.
    """

    @app.exception_handler(Problem)
    @app.exception_handler(DatabaseUnavailable)
    async def on_problem(request: Request, error: Exception) -> Response:
        return problem_response(request, to_problem(error))

    @app.exception_handler(RequestValidationError)
    async def on_validation(request: Request, error: RequestValidationError) -> Response:
        # Who sends nonsense by the thousand is told of some of it: the rest would keep the event loop busy.
        found = error.errors()
        more = [f"and {len(found) - _MOST_REASONS} more"] if len(found) > _MOST_REASONS else []
        detail = "; ".join([*map(_explain, found[:_MOST_REASONS]), *more])
        return problem_response(request, Problem("invalid-request", detail))

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            problem = Problem("not-found", "No route has this path; /docs lists them.")
            return page(request, problem) if _is_for_people(request) else problem_response(request, problem)
        if error.status_code == 405:
            allowed = ", ".join(_allowed(request))
            detail = f"{request.method} is not allowed here; allowed: {allowed}."
            return problem_response(request, Problem("method-not-allowed", detail), {"Allow": allowed})
        return problem_response(request, Problem("invalid-request", "The request could not be read."))


def _is_for_people(request: Request) -> bool:
    # Programs may take anything; a browser asks for a page, and no page is among what programs use.
    wants_page = request.method == "GET" and "text/html" in request.headers.get("Accept", "")
    return wants_page and not request.url.path.startswith(("/v1", "/v2"))


def _allowed(request: Request) -> Iterator[str]:
    """The methods of all routes that have a path; the router names those of the first alone."""
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
        scope = {**request.scope, "method": method}
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes):
            yield method


def _explain(error: Mapping[str, Any]) -> str:
    """Say in our own words what is wrong with a parameter, or with a field of the body."""
    if error["type"] == "json_invalid":
        return "the body is not valid JSON"
    place, *names = error["loc"]
    limits = error.get("ctx", {})
    # What is no object comes as it was sent: bytes, where nothing said that they are JSON.
    as_json = "send JSON as application/json" if isinstance(error["input"], bytes) else "must be an object"
    reason = {
        "missing": "is required",
        "model_attributes_type": as_json,
        "extra_forbidden": "is unknown",
        "literal_error": f"must be {limits.get('expected')}",
        "enum": f"must be {limits.get('expected')}",
        "greater_than_equal": f"must be at least {limits.get('ge')}",
        "less_than_equal": f"must be at most {limits.get('le')}",
        "greater_than": f"must be more than {limits.get('gt')}",
        "less_than": f"must be less than {limits.get('lt')}",
        "value_error": str(limits.get("error")),  # of our own validators
        "string_too_long": f"must have at most {limits.get('max_length')} characters",
        "string_pattern_mismatch": f"must match {limits.get('pattern')}",
    }.get(error["type"], "is not valid")
    if error["type"].startswith("int_"):
        reason = "must be a whole number"
    if place == "body":
        where = f"body field {'.'.join(map(str, names))[:100]}" if names else "the body"
        return f"{where}: {reason}"
    # The place in a list would say nothing: a parameter that may be repeated looks like any other.
    return f"{place} parameter {str(names[0])[:100]}: {reason}"
