"""Errors on the wire: RFC 9457 problem details, and the one table of their types.

Whatever goes wrong, the answer is `application/problem+json` with a type of this table. It never
holds a path of this machine, a stack trace or a library's message: the request id leads to the log,
which does. The same table documents every route (`documented`), so /openapi.json cannot fall behind
it.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from app import dialects
from app.database.engine import DatabaseUnavailable
from app.schemas.problem import ProblemDetails as ProblemDetails

logger = logging.getLogger("flowgauge.problems")

MEDIA_TYPE: Final = dialects.PROBLEMS.media_type
# What a 401 must say (RFC 9110, section 11.6.1).
CHALLENGE: Final = 'Bearer realm="FlowGauge"'

ProblemName = Literal[
    "invalid-request",
    "unauthenticated",
    "forbidden",
    "not-found",
    "unknown-model",
    "unknown-inspection",
    "method-not-allowed",
    "not-acceptable",
    "upload-stalled",
    "files-lost",
    "conflict",
    "idempotency-key-reused",
    "precondition-failed",
    "precondition-required",
    "too-large",
    "unsupported-media-type",
    "undecodable-image",
    "rejected-bundle",
    "rate-limited",
    "internal",
    "queue-full",
    "model-loading",
    "history-unavailable",
    "draining",
    "deadline-exceeded",
]


@dataclass(frozen=True)
class ProblemType:
    """A row of the table.

    Attributes:
        status: HTTP status code.
        title: what this type is, the same words every time.
        example: a `detail`, for the documentation.
        retry_after: seconds for the Retry-After header, where trying again can help.
    """

    status: int
    title: str
    example: str
    retry_after: int | None = None


TYPES: Final[Mapping[ProblemName, ProblemType]] = {
    "invalid-request": ProblemType(
        400, "The request is not valid", "query parameter timeout_ms: must be a whole number"
    ),
    "unauthenticated": ProblemType(
        401, "No valid key came with the request", "Send a key as X-API-Key; this one has been revoked."
    ),
    "forbidden": ProblemType(
        403, "This is not allowed", "This needs one of the roles operator, admin; the key's role is viewer."
    ),
    "not-found": ProblemType(404, "There is nothing at this address", "No route has this path."),
    "unknown-model": ProblemType(
        404,
        "There is no such model",
        "There is no model of category 'bottel'; GET /v1/models lists them.",
    ),
    "unknown-inspection": ProblemType(
        404, "There is no such inspection", "No inspection has this id, or retention has removed it."
    ),
    "method-not-allowed": ProblemType(
        405, "This address does not take this method", "GET is not allowed here; allowed: POST."
    ),
    "not-acceptable": ProblemType(
        406,
        "None of the accepted media types can be given",
        "Accept was 'text/csv'; given are application/json, image/png, application/x-npy.",
    ),
    "upload-stalled": ProblemType(
        408,
        "The body did not arrive in time",
        "The upload stalled: nothing came for 30 s, the limit. Send it again.",
        retry_after=1,
    ),
    "files-lost": ProblemType(
        410,
        "The server's disk has lost it",
        "The picture or the map of this inspection is missing or damaged; a backup can bring it back.",
    ),
    "conflict": ProblemType(
        409, "This does not fit the present state", "The inspection is at revision 2; the review expected 1."
    ),
    "idempotency-key-reused": ProblemType(
        409,
        "The idempotency key was used with another request",
        "Idempotency-Key 'P-000123-top' came with other bytes before; use a new key for a new image.",
    ),
    "precondition-failed": ProblemType(
        412, "It was changed meanwhile", 'If-Match was "3"; the settings are at "4". Read them again.'
    ),
    "precondition-required": ProblemType(
        428, "The change must say what it is based on", 'Send If-Match: "3", from the ETag of what you read.'
    ),
    "too-large": ProblemType(
        413, "The request is too large", "The image has more than 33554432 bytes, the limit."
    ),
    "unsupported-media-type": ProblemType(
        415,
        "The body is not an image of a supported format",
        "The content is no PNG, JPEG, BMP, TIFF or WEBP.",
    ),
    "undecodable-image": ProblemType(
        422, "The image is damaged or of a kind that cannot be inspected", "The PNG is truncated."
    ),
    "rejected-bundle": ProblemType(
        422,
        "The model's bundle was refused",
        "Version 20261125T011500-3f9a2c of 'bottle' is damaged or incomplete. Publish it again.",
    ),
    "rate-limited": ProblemType(
        429, "Too many requests with this key", "The key's limit is 600 requests a minute.", retry_after=1
    ),
    "internal": ProblemType(
        500,
        "The server failed",
        "This should not happen. The server's log has more under the request id.",
    ),
    "queue-full": ProblemType(
        503, "Too much is waiting already", "64 images are waiting, the limit.", retry_after=1
    ),
    "model-loading": ProblemType(
        503, "Not every model is ready", "1 of 3 active models is not loaded.", retry_after=5
    ),
    "history-unavailable": ProblemType(
        503,
        "The history is not available",
        "The history's disk takes no more. Nothing was inspected; store=false inspects without keeping.",
        retry_after=5,
    ),
    "draining": ProblemType(
        503, "The server is stopping", "Send it again, to another server.", retry_after=5
    ),
    "deadline-exceeded": ProblemType(
        504,
        "The deadline passed before there was an answer",
        "Not done within timeout_ms=50; the image was taken off the queue.",
    ),
}


class Problem(Exception):  # noqa: N818  (named as on the wire)
    """An error to answer with.

    Args:
        name: a type of the table.
        detail: what was wrong, what came and what to do. Goes to the client: no paths, no library
            messages.
        retry_after: seconds for Retry-After, where more is known than the table says.
    """

    def __init__(self, name: ProblemName, detail: str, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.name = name
        self.detail = detail
        self.retry_after = retry_after

    @property
    def status(self) -> int:
        """The HTTP status code."""
        return TYPES[self.name].status


def details(request: Request, name: ProblemName, detail: str) -> ProblemDetails:
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


def answer(
    request: Request, name: ProblemName, detail: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Build the response to a request: problem+json, or what the clients of its address read."""
    kind = TYPES[name]
    dialect = dialects.of(request.scope["path"])
    told = dialect.tell(details(request, name, detail))
    all_headers = {**told.headers, **(headers or {})}
    if kind.retry_after is not None:
        all_headers.setdefault("Retry-After", str(kind.retry_after))
    if told.status == 401:
        all_headers["WWW-Authenticate"] = CHALLENGE
    return Response(json.dumps(told.body), told.status, all_headers, dialect.media_type)


def respond(request: Request, problem: Problem) -> Response:
    """Build the response to a request that ended with a problem."""
    after = None if problem.retry_after is None else {"Retry-After": str(problem.retry_after)}
    return answer(request, problem.name, problem.detail, after)


def of(error: Exception) -> Problem:
    """What to answer when an error, whichever, ends a request or one of its images; logs what that hides."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, DatabaseUnavailable):
        logger.warning("%s (%s)", error, error.__cause__)
        return Problem(
            "history-unavailable", "The database does not answer, or takes no more; try again later."
        )
    logger.error("a request failed", exc_info=error)
    return Problem("internal", "This should not happen. The server's log has more under the request id.")


def install(app: FastAPI) -> None:
    """Answer every error that the routes and the router raise with a problem."""

    @app.exception_handler(Problem)
    @app.exception_handler(DatabaseUnavailable)
    async def on_problem(request: Request, error: Exception) -> Response:
        return respond(request, of(error))

    @app.exception_handler(RequestValidationError)
    async def on_validation(request: Request, error: RequestValidationError) -> Response:
        return answer(request, "invalid-request", "; ".join(map(_explain, error.errors())))

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            return answer(request, "not-found", "No route has this path; /docs lists them.")
        if error.status_code == 405:
            allowed = ", ".join(_allowed(request))
            detail = f"{request.method} is not allowed here; allowed: {allowed}."
            return answer(request, "method-not-allowed", detail, {"Allow": allowed})
        return answer(request, "invalid-request", "The request could not be read.")


def _allowed(request: Request) -> Iterator[str]:
    """The methods of all routes that have a path; the router names those of the first alone."""
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        scope = {**request.scope, "method": method}
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes):
            yield method
            if method == "GET":
                yield "HEAD"


def _explain(error: Mapping[str, Any]) -> str:
    """Say in our own words what is wrong with a parameter, or with a field of the body."""
    if error["type"] == "json_invalid":
        return "the body is not valid JSON"
    place, *names = error["loc"]
    limits = error.get("ctx", {})
    reason = {
        "missing": "is required",
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
        return f"body field {'.'.join(map(str, names))[:100]}: {reason}"
    # The place in a list would say nothing: a parameter that may be repeated looks like any other.
    return f"{place} parameter {str(names[0])[:100]}: {reason}"
