"""Changes that say what they are based on: ETag and If-Match (RFC 9110, sections 8.8.3 and 13.1.1)."""

from typing import Annotated, Any, Final

from fastapi import Header

from app.errors.problems import Problem, ProblemName

# Of routes that read what an active model decides by, and of those that change it.
READING_PROBLEMS: Final[tuple[ProblemName, ...]] = (
    *("invalid-request", "unknown-model", "rejected-bundle", "internal", "model-loading"),
)
CHANGING_PROBLEMS: Final[tuple[ProblemName, ...]] = (
    *READING_PROBLEMS,
    *("conflict", "precondition-failed", "precondition-required"),
    "history-unavailable",  # they are audited
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
    """The entity tag of a revision, or of what has another name that changes with it."""
    return f'"{revision}"'


def require_match(if_match: str | None, revision: int | str | None) -> None:
    """Refuse a change that is not based on what there is.

    Args:
        if_match: the header's value. A weak tag never matches: the comparison is strong.
        revision: of what there is; None where there is nothing yet, so that no header can match.

    Raises:
        Problem: precondition-required or precondition-failed.
    """
    if if_match is None:
        if revision is None:
            return
        raise Problem(
            "precondition-required",
            f"Send If-Match: {etag(revision)}, if that is what the change is based on; GET tells in ETag.",
        )
    if revision is None:
        raise Problem("precondition-failed", f"If-Match was {if_match[:64]}, but there is nothing yet.")
    if not {tag.strip() for tag in if_match.split(",")} & {"*", etag(revision)}:
        raise Problem(
            "precondition-failed",
            f"If-Match was {if_match[:64]}; what there is has {etag(revision)}. Read it again.",
        )
