"""Schemas of learning from reviewed inspections."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from .models import CategoryName, VersionName

Obstacle = Literal["no-descriptions", "too-few-defects", "already-learned"]


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
