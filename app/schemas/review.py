"""Schemas of reviews by people."""

from typing import Annotated

from pydantic import BaseModel, Field

from .body import Body
from .history import KeyId, Verdict
from .products import DefectKind
from .texts import MAX_TEXT, TEXT_PATTERN
from .timestamp import Timestamp

# Line breaks and tabs are allowed, other control characters are not.
_NOTE_PATTERN = r"^[^\x00-\x08\x0b-\x1f\x7f-\x9f]*$"


class NewReview(Body):
    """A review to add to an inspection."""

    verdict: Verdict = Field(description="The part's true state, whatever the decision.", examples=["defect"])
    expected_revision: Annotated[int, Field(strict=True)] = Field(
        ge=0,
        lt=2**31 - 1,
        description="Number of reviews that the reviewer has seen: 0 for the first review.",
        examples=[0],
    )
    reviewer: str | None = Field(
        None, max_length=MAX_TEXT, pattern=TEXT_PATTERN, description="The reviewer's name."
    )
    kind: Annotated[
        DefectKind | None,
        Field(description="Kind of the defect, one of the product's.", examples=["scratch"]),
    ] = None
    note: str | None = Field(None, max_length=4000, pattern=_NOTE_PATTERN, examples=["scratch, top left"])


class Review(BaseModel):
    """A review of an inspection."""

    revision: int = Field(description="1 for the inspection's first; the latest one counts.", examples=[1])
    created: Timestamp
    verdict: Verdict
    kind: str | None = Field(description="Kind of the defect; null if unknown.", examples=["scratch"])
    reviewer: str | None = Field(examples=["A. Lovelace"])
    note: str | None = Field(examples=["scratch, top left"])
    key_id: KeyId


class ReviewList(BaseModel):
    """The reviews of an inspection."""

    reviews: list[Review] = Field(description="The oldest first.")
