"""Schemas of events, as /v1/events streams them and sinks deliver them."""

from typing import Literal

from pydantic import BaseModel, Field

from .history import Verdict
from .predict import Decision, FileName, Links, Warnings
from .timestamp import Timestamp

_ID = "0193a6b2-7c1e-7d4f-8a53-5d1d3b7a8c11"


class InspectionEvent(BaseModel):
    """An inspection that is in the history, so that its links work."""

    inspection_id: str = Field(examples=[_ID])
    created_at: Timestamp = Field(description="Time of the answer.")
    category: str = Field(examples=["bottle"])
    version: str = Field(examples=["20261125T011500-3f9a2c"])
    station: str | None = Field(examples=["line-3"])
    part_id: str | None = Field(examples=["P-000123"])
    file_name: FileName
    decision: Decision
    warnings: Warnings
    score: float = Field(examples=[4.21])
    p_value: float = Field(examples=[0.0047])
    audit: bool = Field(description="Whether it belongs to the audit sample.")
    links: Links


class ReviewEvent(BaseModel):
    """A review of an inspection by a person."""

    inspection_id: str = Field(examples=[_ID])
    created_at: Timestamp = Field(description="Time of the review.")
    category: str = Field(examples=["bottle"])
    station: str | None = Field(examples=["line-3"])
    decision: Decision = Field(description="The decision of the inspection.")
    revision: int = Field(description="Number of reviews of the inspection.", examples=[1])
    verdict: Verdict
    kind: str | None = Field(description="Kind of the defect; null if unknown.", examples=["scratch"])


class ModelEvent(BaseModel):
    """Another version serves: it was activated, rolled back to, or loaded at start."""

    created_at: Timestamp
    category: str = Field(examples=["bottle"])
    version: str = Field(examples=["20261125T011500-3f9a2c"])
    previous: str | None = Field(
        description="The version that served before; null after the server's start.",
        examples=["20261120T091200-77ab01"],
    )


class ThresholdsEvent(BaseModel):
    """A change of thresholds or of the region of interest, with the same version."""

    created_at: Timestamp
    category: str = Field(examples=["bottle"])
    what: Literal["rates", "calibration", "region"] = Field(
        description="The target rates, the calibration, or the region of interest."
    )
