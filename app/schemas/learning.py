"""Schemas of learning from reviewed inspections."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from .models import CategoryName, LearnedInfo, VersionName
from .predict import ThresholdInfo

Obstacle = Literal["no-descriptions", "too-few-defects", "already-learned", "running"]


class LearningState(BaseModel):
    """The reviewed images that the active version would learn from now."""

    category: CategoryName
    version: VersionName = Field(description="The active version.")
    defects: int = Field(description="Images reviewed as defects, one of each part.", examples=[12])
    good: int = Field(
        description="Images reviewed as good, one of each part, without the audit sample.", examples=[40]
    )
    left_out: int = Field(
        description="Inspections reviewed as defects that are not used. Their image is deleted, is another "
        "one of the same part, has contradicting reviews or is known to the version, or there are over 500.",
        examples=[2],
    )
    since: datetime | None = Field(description="Time of the oldest of these inspections.")
    obstacle: Obstacle | None = Field(description="The reason why it cannot learn now; null if it can.")
    progress: float | None = Field(
        description="Share of the images that a run under way has read; null without one.", examples=[0.4]
    )


class LearnedVersion(BaseModel):
    """A new version that has learned from reviews. It does not serve until it is activated."""

    category: CategoryName
    version: VersionName
    from_version: VersionName = Field(description="The version it was made from.")
    learned: LearnedInfo
    before: ThresholdInfo = Field(description="Of the active version, at the rates set.")
    threshold: ThresholdInfo = Field(description="Of the new version, by the calibration of its training.")
    promise: str = Field(description="Both promised rates, in words.")
    warnings: list[str] = Field(description="Warnings for a person to check.")
