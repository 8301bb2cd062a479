"""Schemas of deletions that need confirmation."""

from typing import Literal

from pydantic import BaseModel, Field

from .timestamp import Timestamp

DeletionKind = Literal["age", "size", "orphans"]


class HeldDeletion(BaseModel):
    """A deletion that waits for confirmation."""

    kind: DeletionKind = Field(
        description="Retention by age or by size, or removal of files without an inspection."
    )
    count: int = Field(
        description="Amount to delete: inspections (age), bytes (size) or files (orphans).", examples=[52_310]
    )
    total: int = Field(description="Amount stored.", examples=[61_007])
    since: Timestamp = Field(description="Time since which it waits.")
    reason: str = Field(
        description="The reason to check before confirming.",
        examples=["retention by age would delete 52310 of 61007 inspections; is the clock right?"],
    )


class HeldDeletions(BaseModel):
    """The deletions that wait for confirmation."""

    deletions: list[HeldDeletion]
