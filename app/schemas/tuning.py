"""Schemas of a category's settings: false-reject rates and regions of interest."""

from typing import Annotated

from pydantic import BaseModel, Field

from app.category_settings import Area, Rate
from app.schemas.body import Body
from app.schemas.models import CategoryName, VersionName
from app.schemas.predict import Threshold


class RatesChange(Body):
    """New rates; a field that is left out stays as it is, null goes back to the default."""

    target_fpr: Rate | None = Field(
        None,
        description="Share of good parts that may be rejected; null for the rate the version was made with.",
        examples=[0.005],
    )
    review_fpr: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None,
        description="Share of good parts that may be rejected or sent to a person; 0 for no review band, "
        "null for what the version was made with.",
        examples=[0.02],
    )
    reason: str = Field(
        min_length=1,
        max_length=500,
        description="Why, for the audit log.",
        examples=["Customer complaint 88"],
    )


class Rates(BaseModel):
    """The rates that are set for a category, and the thresholds that they give with its active version."""

    category: CategoryName
    version: VersionName = Field(description="The active version.")
    target_fpr: float | None = Field(description="As set; null: as the version was made.", examples=[0.005])
    review_fpr: float | None = Field(description="As set; null: as the version was made.", examples=[0.02])
    threshold: Threshold = Field(description="By the calibration of stations that have none of their own.")


class RegionOfInterest(Area):
    """A region of interest: pixels outside it never count."""

    station: str | None = Field(
        description="null: for stations that have none of their own.", examples=["line-3"]
    )
    share: float = Field(description="Share of the active version's input that lies inside.", examples=[0.62])
