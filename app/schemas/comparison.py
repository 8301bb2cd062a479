"""Schemas of the result of a job `compare`: two versions on the same images."""

from typing import Literal

from pydantic import BaseModel, Field


class ComparedVersion(BaseModel):
    """A version and its decisions, by its own calibration."""

    version: str
    starter: bool
    reject: float = Field(description="Threshold of REJECT.")
    review: float | None = Field(description="Threshold of REVIEW; null without a review band.")
    rejected_good: int
    rejected_defective: int
    passed_defective: int
    calibrated_good: int = Field(description="Of the good images, those that set its threshold.")
    overkill: float | None = Field(description="Share of good images rejected; null without good ones.")
    escape: float | None = Field(description="Share of defects passed; null without defects.")
    image_auroc: float | None = Field(description="Null without good images or without defects.")


class ImageDecision(BaseModel):
    """A version's decision on an image."""

    score: float
    p_value: float
    decision: Literal["PASS", "REVIEW", "REJECT"]


class ChangedImage(BaseModel):
    """An image of the product on which the versions decide differently."""

    image: str = Field(description="SHA-256, its id.")
    kind: str | None = Field(description="Kind of defect; null for a good image.")
    before: ImageDecision
    after: ImageDecision


class VersionComparison(BaseModel):
    """Decisions of two versions on the product's images that neither was fitted to."""

    good: int = Field(description="Good images, also those that calibrated a version.")
    defective: int
    changed: int = Field(description="Images on which the versions decide differently.")
    before: ComparedVersion
    after: ComparedVersion
    images: list[ChangedImage] = Field(description="Changed ones, the worst change first; at most 200.")
