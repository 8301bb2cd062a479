"""What goes over the wire as it happens: the data of /v1/events, and what sinks deliver."""

from typing import Literal

from pydantic import BaseModel, Field

from .history import Verdict
from .predict import Decision, Links
from .timestamp import Timestamp

_ID = "0193a6b2-7c1e-7d4f-8a53-5d1d3b7a8c11"


class InspectionEvent(BaseModel):
    """A part was inspected, and is in the history: its links work."""

    inspection_id: str = Field(examples=[_ID])
    created_at: Timestamp = Field(description="When it was answered.")
    category: str = Field(examples=["bottle"])
    version: str = Field(examples=["20261125T011500-3f9a2c"])
    station: str | None = Field(examples=["line-3"])
    part_id: str | None = Field(examples=["P-000123"])
    decision: Decision
    score: float = Field(examples=[4.21])
    p_value: float = Field(examples=[0.0047])
    links: Links


class ReviewEvent(BaseModel):
    """A person has said whether a part is good."""

    inspection_id: str = Field(examples=[_ID])
    created_at: Timestamp = Field(description="When it was said.")
    category: str = Field(examples=["bottle"])
    station: str | None = Field(examples=["line-3"])
    decision: Decision = Field(description="What had been decided.")
    revision: int = Field(description="How many reviews there are.", examples=[1])
    verdict: Verdict


class ModelEvent(BaseModel):
    """Requests get another version from now on: it was activated, rolled back to, or loaded at the start."""

    created_at: Timestamp
    category: str = Field(examples=["bottle"])
    version: str = Field(examples=["20261125T011500-3f9a2c"])
    previous: str | None = Field(
        description="What served before; null after the server's start.", examples=["20261120T091200-77ab01"]
    )


class ThresholdsEvent(BaseModel):
    """What decides has changed for a category, while its version stays."""

    created_at: Timestamp
    category: str = Field(examples=["bottle"])
    what: Literal["rates", "calibration", "region"] = Field(
        description="The asked rates, the calibration, or the region of interest."
    )
