"""What goes over the wire about deletions that wait for a person."""

from typing import Literal

from pydantic import BaseModel, Field

from .timestamp import Timestamp

DeletionKind = Literal["age", "size", "orphans"]


class HeldDeletion(BaseModel):
    """A deletion that waits for a person."""

    kind: DeletionKind = Field(
        description="What deletes: retention by age or by size, or the sweep of files without an inspection."
    )
    count: int = Field(
        description="How much it would delete: inspections (age), bytes (size) or files (orphans).",
        examples=[52_310],
    )
    total: int = Field(description="How much there is.", examples=[61_007])
    since: Timestamp = Field(description="Since when it waits.")
    reason: str = Field(
        description="What to look at before it is confirmed.",
        examples=["retention by age would delete 52310 of 61007 inspections; is the clock right?"],
    )


class HeldDeletions(BaseModel):
    """The deletions that wait for a person."""

    deletions: list[HeldDeletion]
