"""Optimistic locking with ETag and If-Match (RFC 9110, sections 8.8.3 and 13.1.1)."""

from typing import Annotated, Any, Final

from fastapi import Header

from app.errors.problems import Problem, ProblemName

# Problems of routes that read thresholds, regions or calibrations, and of routes that change them.
READING_PROBLEMS: Final[tuple[ProblemName, ...]] = (
    *("invalid-request", "unknown-model", "rejected-bundle", "internal", "model-loading"),
)
CHANGING_PROBLEMS: Final[tuple[ProblemName, ...]] = (
    *READING_PROBLEMS,
    *("conflict", "precondition-failed", "precondition-required"),
    "history-unavailable",  # the audit log is in its database
)
_TAG: Final = {
    "description": "Names what was read; send it as If-Match with a change.",
    "schema": {"type": "string"},
    "example": '"3"',
}
ETAG: Final[dict[int | str, dict[str, Any]]] = {200: {"headers": {"ETag": _TAG}}}

IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        max_length=500,
        description="The ETag of what was read, so that nobody's change in between is lost.",
        examples=['"3"'],
    ),
]


def etag(revision: int | str) -> str:
    """Make the entity tag of a revision."""
    return f'"{revision}"'


def require_match(if_match: str | None, revision: int | str | None) -> None:
    """Refuse a change that is not based on the current revision.

    Args:
        if_match: the header's value. A weak tag never matches: the comparison is strong.
        revision: the current one; None if nothing exists yet, so that no header can match.

    Raises:
        Problem: precondition-required or precondition-failed.
    """
    if if_match is None:
        if revision is None:
            return
        raise Problem(
            "precondition-required",
            f"Send If-Match: {etag(revision)} if the change is based on this; GET returns it as ETag.",
        )
    if revision is None:
        raise Problem("precondition-failed", f"If-Match was {if_match[:64]}, but nothing exists yet.")
    if not {tag.strip() for tag in if_match.split(",")} & {"*", etag(revision)}:
        raise Problem(
            "precondition-failed",
            f"If-Match was {if_match[:64]}; the current ETag is {etag(revision)}. Read it again.",
        )
