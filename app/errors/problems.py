"""The table of RFC 9457 problem types, and the exception that names one.

The same table documents every route (`documented`), so /openapi.json cannot fall behind it. Responses are
built in `problem_responses`, so that code without a web server need not import FastAPI.
"""

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

ProblemName = Literal[
    "invalid-request",
    "unauthenticated",
    "forbidden",
    "not-found",
    "unknown-model",
    "unknown-inspection",
    "unknown-product",
    "unknown-job",
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
    """A type of problem."""

    status: int  # HTTP status code
    title: str  # constant text
    example: str  # a `detail`, for the documentation
    retry_after: int | None = None  # seconds for the Retry-After header, if a retry can help


# Codes of an OSError that mean a disk without room.
DISK_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

TYPES: Final[Mapping[ProblemName, ProblemType]] = {
    "invalid-request": ProblemType(400, "The request is not valid", "timeout_ms: must be a whole number"),
    "unauthenticated": ProblemType(401, "No valid key came with the request", "The key has been revoked."),
    "forbidden": ProblemType(
        403, "The key does not allow this", "This needs the role admin; the key's is viewer."
    ),
    "not-found": ProblemType(404, "No such route", "No route has this path."),
    "unknown-model": ProblemType(404, "No such model", "There is no model of category 'bottel'."),
    "unknown-inspection": ProblemType(404, "No such inspection", "No inspection has this id."),
    "unknown-product": ProblemType(
        404, "No such product or image", "There is no product 'bottel'; GET /v1/products lists them."
    ),
    "unknown-job": ProblemType(404, "No such job", "No job has this id."),
    "method-not-allowed": ProblemType(
        405, "The route does not support this method", "GET is not allowed here; allowed: POST."
    ),
    "not-acceptable": ProblemType(
        406,
        "None of the accepted media types is available",
        "Accept was 'text/csv'; supported are image/png.",
    ),
    "upload-stalled": ProblemType(
        408, "The body did not arrive in time", "Nothing came for 30 s, the limit.", retry_after=1
    ),
    "files-lost": ProblemType(
        410, "A stored file is missing or damaged", "The map of this inspection is missing or damaged."
    ),
    "conflict": ProblemType(
        409,
        "The request conflicts with the present state",
        "The inspection is at revision 2; the review expected 1.",
    ),
    "idempotency-key-reused": ProblemType(
        409,
        "The idempotency key was used with another request",
        "Idempotency-Key 'P-000123-top' came with other bytes before; use a new key for a new image.",
    ),
    "precondition-failed": ProblemType(
        412,
        "The resource was changed since it was read",
        'If-Match was "3"; the current ETag is "4". Read it again.',
    ),
    "precondition-required": ProblemType(
        428, "The change needs an If-Match header", 'Send If-Match: "3", from the ETag of what you read.'
    ),
    "too-large": ProblemType(413, "The request is too large", "The image has more than 33554432 bytes."),
    "unsupported-media-type": ProblemType(
        415,
        "The body is not an image of a supported format",
        "The content is no PNG, JPEG, BMP, TIFF or WEBP.",
    ),
    "undecodable-image": ProblemType(422, "The image is damaged or not supported", "The PNG is truncated."),
    "rejected-bundle": ProblemType(
        422, "The model's bundle was refused", "The version is damaged or incomplete. Publish it again."
    ),
    "rate-limited": ProblemType(
        429, "Too many requests with this key", "The key's limit is 600 requests a minute.", retry_after=1
    ),
    "internal": ProblemType(500, "The server failed", "The server's log has more under the request id."),
    "queue-full": ProblemType(503, "The queue is full", "64 images are waiting, the limit.", retry_after=1),
    "model-loading": ProblemType(
        503, "The model is not loaded yet", "Active models that are not loaded: 1.", retry_after=5
    ),
    "history-unavailable": ProblemType(
        503, "The history is not available", "The history's disk takes no more.", retry_after=5
    ),
    "draining": ProblemType(503, "The server is stopping", "Send it to another server.", retry_after=5),
    "deadline-exceeded": ProblemType(
        504, "The deadline passed before the answer was ready", "Not done within 50 ms; not computed."
    ),
}


class Problem(Exception):  # noqa: N818  (named as in RFC 9457)
    """An error to answer with.

    Args:
        name: a type of the table.
        detail: what was wrong, what came and what to do. It goes to the client: no paths, no library
            messages.
        retry_after: seconds for Retry-After, in place of the table's.
    """

    def __init__(self, name: ProblemName, detail: str, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.name = name
        self.detail = detail
        self.retry_after = retry_after

    @property
    def status(self) -> int:
        return TYPES[self.name].status
