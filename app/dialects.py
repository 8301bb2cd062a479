"""How errors are told: as problem details, or in the words of a service that other addresses stand in for.

Programs that were written for Amazon Lookout for Vision or for the Open Inference Protocol know nothing of
problem details. Whatever ends their requests, before any route or in one, is told in the form that they read.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from app.schemas.problem import ProblemDetails


@dataclass(frozen=True)
class Told:
    """An error on the wire.

    Attributes:
        status: HTTP status code.
        body: of the JSON.
        headers: beside those that every answer of this kind has.
    """

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Dialect:
    """A way to tell errors.

    Attributes:
        paths: the addresses that speak it.
        media_type: of its errors.
        schema: of its errors, for the OpenAPI document.
        tell: makes what goes over the wire.
    """

    paths: re.Pattern[str]
    media_type: str
    schema: Mapping[str, Any]
    tell: Callable[[ProblemDetails], Told]


# Lookout's exceptions by our problems: it knows six, and its clients look for no other.
_LOOKOUT_NAMES: Final = {
    "unauthenticated": ("AccessDeniedException", 403),
    "forbidden": ("AccessDeniedException", 403),
    "not-found": ("ResourceNotFoundException", 404),
    "unknown-model": ("ResourceNotFoundException", 404),
    "unknown-inspection": ("ResourceNotFoundException", 404),
    "files-lost": ("ResourceNotFoundException", 404),
    "conflict": ("ConflictException", 409),
    "idempotency-key-reused": ("ConflictException", 409),
    "rate-limited": ("ThrottlingException", 429),
    "queue-full": ("ThrottlingException", 429),
    # Its clients try these again by themselves. A model that is refused is no fault of the picture's.
    "rejected-bundle": ("InternalServerException", 500),
    "upload-stalled": ("InternalServerException", 503),
    "internal": ("InternalServerException", 500),
    "model-loading": ("InternalServerException", 503),
    "history-unavailable": ("InternalServerException", 503),
    "draining": ("InternalServerException", 503),
    "deadline-exceeded": ("InternalServerException", 504),
}
_LOOKOUT_ELSE: Final = ("ValidationException", 400)
_LOOKOUT_RESOURCES: Final = ("ResourceNotFoundException", "ConflictException")


def _tell_lookout(problem: ProblemDetails) -> Told:
    name, status = _LOOKOUT_NAMES.get(problem.type, _LOOKOUT_ELSE)
    body = {"Message": problem.detail}
    if name in _LOOKOUT_RESOURCES:
        body |= {"ResourceId": problem.instance, "ResourceType": "MODEL"}
    return Told(status, body, {"x-amzn-ErrorType": name, "x-amzn-RequestId": problem.request_id})


def _text_fields(required: str, *others: str) -> dict[str, Any]:
    names = (required, *others)
    return {
        "type": "object",
        "required": [required],
        "properties": {name: {"type": "string"} for name in names},
    }


PROBLEMS: Final = Dialect(
    re.compile(".*", re.DOTALL),
    "application/problem+json",
    {"$ref": f"#/components/schemas/{ProblemDetails.__name__}"},
    lambda problem: Told(problem.status, problem.model_dump()),
)
LOOKOUT: Final = Dialect(
    re.compile(r"/2020-11-20/.*", re.DOTALL),
    "application/json",
    _text_fields("Message", "ResourceId", "ResourceType"),
    _tell_lookout,
)
OPEN_INFERENCE: Final = Dialect(
    re.compile(r"/v2(/.*)?", re.DOTALL),
    "application/json",
    _text_fields("error"),
    lambda problem: Told(problem.status, {"error": f"{problem.detail} ({problem.type})"}),
)


def of(path: str) -> Dialect:
    """What the clients of an address read."""
    return next(one for one in (LOOKOUT, OPEN_INFERENCE, PROBLEMS) if one.paths.fullmatch(path))
