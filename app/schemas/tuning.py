"""Schemas of what an operator sets for a category: rates, regions of interest, calibrations."""

from datetime import datetime
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.schemas.body import Body
from app.schemas.models import CategoryName, VersionName
from app.schemas.predict import Sha256, ThresholdInfo

MAX_POINTS: Final = 2000  # of a region: more would make its mask slow, and the file large

FalseRejectRate = Annotated[float, Field(gt=0, lt=1)]
Point = tuple[Annotated[float, Field(ge=0, le=65_535)], Annotated[float, Field(ge=0, le=65_535)]]
Polygon = Annotated[list[Point], Field(min_length=3, max_length=MAX_POINTS, fail_fast=True)]


class StoredSettings(Body):
    """Settings that are stored, or part of them."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


class ImageSize(StoredSettings):
    """Width and height of a picture in pixels."""

    width: int = Field(ge=1, le=65_535, examples=[900])
    height: int = Field(ge=1, le=65_535, examples=[900])


class Area(StoredSettings):
    """Polygons in the pixels of a picture of a given size; what lies in any of them counts.

    Raises:
        ValidationError: a corner lies outside the picture.
    """

    image: ImageSize = Field(
        description="Size of the picture that the polygons were drawn on; they are scaled to others."
    )
    polygons: list[Polygon] = Field(
        min_length=1,
        max_length=MAX_POINTS // 3,
        fail_fast=True,
        description="Corners (x, y) of each polygon, in pixels from the upper left.",
        examples=[[[[100, 100], [800, 100], [800, 700], [100, 700]]]],
    )

    @model_validator(mode="after")
    def _require_corners_in_the_picture(self) -> Self:
        if sum(map(len, self.polygons)) > MAX_POINTS:
            raise ValueError(f"the polygons have more than {MAX_POINTS} corners together")
        for i, polygon in enumerate(self.polygons):
            if any(x > self.image.width or y > self.image.height for x, y in polygon):
                raise ValueError(f"polygon {i} reaches beyond the picture")
        return self


class RatesChange(Body):
    """New rates; a field that is left out stays as it is, null goes back to the default."""

    target_fpr: FalseRejectRate | None = Field(
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
    threshold: ThresholdInfo = Field(
        description="By the calibration of stations that have none of their own."
    )


class RegionOfInterest(Area):
    """A region of interest: pixels outside it never count."""

    station: str | None = Field(
        description="null: for stations that have none of their own.", examples=["line-3"]
    )
    share: float = Field(description="Share of the active version's input that lies inside.", examples=[0.62])


class Origin(BaseModel):
    """The origin of a calibration that was made after its version."""

    created: datetime
    by: str = Field(description="Who asked for it.", examples=["4f1d8a02c7b96e35 line engineer"])
    reason: str = Field(examples=["New lamp on line 3"])
    pictures: Sha256 = Field(description="Of the sorted SHA-256 of its pictures, a line each.")


class CalibrationInForce(BaseModel):
    """The calibration by which a station's images are decided, with the active version."""

    category: CategoryName
    version: VersionName = Field(description="The active version.")
    engine: str = Field(description="The engine it holds for.", examples=["torch-cpu-float32"])
    station: str | None = Field(description="As asked for.", examples=["line-3"])
    threshold: ThresholdInfo = Field(description="What it gives at the rates that are set.")
    origin: Origin | None = Field(description="null: it was made with the version.")
    stations: list[str] = Field(
        description="Stations that have a calibration of their own.", examples=[["line-3"]]
    )


class Renewed(CalibrationInForce):
    """A calibration that holds from now on, and what it changes."""

    before: ThresholdInfo | None = Field(
        description="What held until now; null where the version had no calibration for the engine."
    )
    pictures: int = Field(description="Good images it was made of.", examples=[210])
    left_out: int = Field(
        description="Reviewed images of the history that were not taken: the model was fitted to them, they "
        "are among the uploaded ones, another of the same part_id was taken, so many later ones were that "
        "there was no room, or they are gone.",
        examples=[0],
    )
    warnings: list[str] = Field(
        description="What a person should look at.",
        examples=[["score: higher than in the calibration before (distance 0.31, shift +0.40)"]],
    )
