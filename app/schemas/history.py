"""Schemas of stored inspections."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from .predict import Decision, FileName, Inspection, Links, Sha256, Warnings
from .timestamp import Timestamp

Verdict = Literal["good", "defect"]
KeyId = Annotated[
    str | None, Field(description="The key of the request; null without keys.", examples=["4f1d8a02c7b96e35"])
]


class ReviewState(BaseModel):
    """The state of an inspection's reviews."""

    revision: int = Field(
        description="Number of reviews; the next one sends it as `expected_revision`.", examples=[1]
    )
    verdict: Verdict | None = Field(
        description="Verdict of the latest review; null without reviews.", examples=["defect"]
    )
    kind: str | None = Field(
        description="Kind of defect in the latest review; null if unknown.", examples=["scratch"]
    )


class InspectionSummary(BaseModel):
    """An inspection in a list."""

    inspection_id: str = Field(examples=["0193a6b2-7c1e-7d4f-8a53-5d1d3b7a8c11"])
    created: Timestamp = Field(description="Time of the answer.")
    category: str = Field(examples=["bottle"])
    version: str = Field(examples=["20261125T011500-3f9a2c"])
    decision: Decision
    score: float = Field(examples=[4.21])
    p_value: float = Field(examples=[0.0047])
    part_id: str | None = Field(examples=["P-000123"])
    product_id: str | None = Field(examples=["bottle-500ml"])
    recipe_id: str | None = Field(examples=["top-light"])
    station: str | None = Field(examples=["line-3"])
    file_name: FileName
    margin: float | None = Field(
        description="Score minus the threshold above which it is a REJECT; null if it was not recorded.",
        examples=[1.11],
    )
    warnings: Warnings
    key_id: KeyId
    image_sha256: Sha256
    audit: bool = Field(description="Whether it belongs to the audit sample.")
    has_pictures: bool = Field(description="Whether the image and the map are still stored.")
    review: ReviewState
    links: Links


class InspectionPage(BaseModel):
    """Inspections, newest first."""

    inspections: list[InspectionSummary]
    next_cursor: str | None = Field(
        description="The `cursor` of the next page; null on the last one.",
        examples=["0193a6b2-7c1e-7d4f-8a53-5d1d3b7a8c11"],
    )


class KeptInspection(Inspection):
    """A stored inspection: the answer, and its state in the history."""

    created: Timestamp = Field(description="Time of the answer.")
    key_id: KeyId
    request_id: str = Field(description="Leads to the server's log.", examples=["6f1c0e52a9"])
    has_pictures: bool = Field(description="Whether the image and the map are still stored.")
    review: ReviewState


class Part(BaseModel):
    """The inspections of one part id."""

    part_id: str = Field(examples=["P-000123"])
    decision: Decision | None = Field(
        description="The worst decision of its images: REJECT, then REVIEW, then PASS. Null while fewer "
        "images are stored than `expect` requires and none is a REJECT."
    )
    images: dict[Decision, int] = Field(
        description="Number of images by decision.", examples=[{"PASS": 3, "REVIEW": 0, "REJECT": 1}]
    )
    inspections: list[InspectionSummary] = Field(
        description="Its latest images, newest first, 500 at most; /v1/inspections?part_id= has the others."
    )
