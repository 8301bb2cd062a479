"""Responses to failed requests: RFC 9457 problem details, with a type of the table.

Clients of the Open Inference Protocol, under /v2, get `{"error": ...}` instead. A response never holds a path
of this machine, a stack trace or a library's message. The request id leads to the log, which has them.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DataError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from app.database.engine import DatabaseUnavailable
from app.errors.problems import DISK_FULL, TYPES, Problem, ProblemName
from app.schemas.problem import ProblemDetails
from app.storage.store import StoreUnavailable

logger = logging.getLogger("flowgauge.problems")

MEDIA_TYPE: Final = "application/problem+json"
OPEN_INFERENCE_PREFIX: Final = "/v2"
_MAX_REASONS: Final = 8  # listed in one response
# A 401 must carry a challenge (RFC 9110, section 11.6.1).
CHALLENGE: Final = 'Bearer realm="FlowGauge"'


def problem_details(request: Request, name: ProblemName, detail: str) -> ProblemDetails:
    """Build the body of a problem, and record its type for log and metrics."""
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
    """Return True if a path belongs to the Open Inference Protocol, which has its own errors."""
    return path == OPEN_INFERENCE_PREFIX or path.startswith(f"{OPEN_INFERENCE_PREFIX}/")


def open_inference_error(problem: ProblemDetails) -> dict[str, str]:
    """Build the body of an error of the Open Inference Protocol."""
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
    """Map an exception to a problem. Log it if the problem hides details."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, DatabaseUnavailable):
        logger.warning("%s", error)
        return Problem(
            "history-unavailable", "The database does not answer, or takes no more; try again later."
        )
    if isinstance(error, StoreUnavailable):
        logger.warning("%s", error)
        return Problem("history-unavailable", "The store of the files does not answer; try again later.")
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        logger.warning("%s", error)
        return Problem("history-unavailable", "A disk of the server is full; make room, then try again.")
    if isinstance(error, DataError):
        logger.warning("%s", error)
        return Problem("invalid-request", "A text has a character that no database keeps, such as U+0000.")
    logger.error("a request failed", exc_info=error)
    return Problem("internal", "The server failed. Its log has more under the request id.")


def install_handlers(app: FastAPI, page: Callable[[Request, Problem], Response]) -> None:
    """Install handlers that answer every error of routes and router with a problem.

    `page` renders it for a browser that asks for an unknown address.
    """

    @app.exception_handler(Problem)
    @app.exception_handler(DatabaseUnavailable)
    @app.exception_handler(StoreUnavailable)
    @app.exception_handler(DataError)
    async def on_problem(request: Request, error: Exception) -> Response:
        return problem_response(request, to_problem(error))

    @app.exception_handler(RequestValidationError)
    async def on_validation(request: Request, error: RequestValidationError) -> Response:
        # Thousands of errors would keep the event loop busy.
        errors = error.errors()
        more = [f"and {len(errors) - _MAX_REASONS} more"] if len(errors) > _MAX_REASONS else []
        detail = "; ".join([*map(_explain, errors[:_MAX_REASONS]), *more])
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
    # A browser asks for HTML. API paths never have a page.
    wants_page = request.method == "GET" and "text/html" in request.headers.get("Accept", "")
    return wants_page and not request.url.path.startswith(("/v1", "/v2"))


def _allowed(request: Request) -> Iterator[str]:
    """Yield the methods of all routes that match the path; the router names only those of the first."""
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
        scope = {**request.scope, "method": method}
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes):
            yield method


def _explain(error: Mapping[str, Any]) -> str:
    """Describe an error of a parameter or of a body field in plain words."""
    if error["type"] == "json_invalid":
        return "the body is not valid JSON"
    place, *names = error["loc"]
    limits = error.get("ctx", {})
    # The input is bytes if the content type was not JSON.
    as_json = "send JSON as application/json" if isinstance(error["input"], bytes) else "must be an object"
    reason = {
        "missing": "is required",
        "model_attributes_type": as_json,
        "extra_forbidden": "is unknown",
        "literal_error": f"must be {limits.get('expected')}",
        "union_tag_not_found": f"needs the field {limits.get('discriminator')}",
        "union_tag_invalid": f"{limits.get('discriminator')} must be one of {limits.get('expected_tags')}",
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
    # Leave out the index in a list: it means nothing for a repeated parameter.
    return f"{place} parameter {str(names[0])[:100]}: {reason}"
