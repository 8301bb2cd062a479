"""What goes over the wire about reviews: what people say of inspected parts."""

from typing import Annotated

from pydantic import BaseModel, Field

from .body import Body
from .history import KeyId, Verdict
from .texts import MAX_TEXT, TEXT_PATTERN
from .timestamp import Timestamp

# Of several lines, but without other control characters.
_NOTE_PATTERN = r"^[^\x00-\x08\x0b-\x1f\x7f-\x9f]*$"


class NewReview(Body):
    """What somebody says of an inspected part."""

    verdict: Verdict = Field(description="What the part is, whatever was decided.", examples=["defect"])
    expected_revision: Annotated[int, Field(strict=True)] = Field(
        ge=0,
        lt=2**31 - 1,
        description="How many reviews the inspection has, as the reviewer has seen it: 0 for the first.",
        examples=[0],
    )
    reviewer: str | None = Field(
        None, max_length=MAX_TEXT, pattern=TEXT_PATTERN, description="Who has looked at it."
    )
    note: str | None = Field(None, max_length=4000, pattern=_NOTE_PATTERN, examples=["scratch, top left"])


class Review(BaseModel):
    """A review."""

    revision: int = Field(description="1 for the inspection's first; the latest one counts.", examples=[1])
    created: Timestamp
    verdict: Verdict
    reviewer: str | None = Field(examples=["A. Lovelace"])
    note: str | None = Field(examples=["scratch, top left"])
    key_id: KeyId


class ReviewList(BaseModel):
    """All reviews of an inspection."""

    reviews: list[Review] = Field(description="The first one first.")
