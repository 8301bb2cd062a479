"""Schemas of a category's settings: rates, regions of interest, calibrations."""

from datetime import datetime
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.schemas.body import Body
from app.schemas.models import CategoryName, VersionName
from app.schemas.predict import Sha256, ThresholdInfo

MAX_POINTS: Final = 2000  # of a region: more would make its mask slow, and the file large

FalseRejectRate = Annotated[float, Field(gt=0, lt=1)]
AuditShare = Annotated[float, Field(ge=0, le=1)]
Point = tuple[Annotated[float, Field(ge=0, le=65_535)], Annotated[float, Field(ge=0, le=65_535)]]
Polygon = Annotated[list[Point], Field(min_length=3, max_length=MAX_POINTS, fail_fast=True)]


class StoredSettings(Body):
    """Stored settings, or a part of them."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


class ImageSize(StoredSettings):
    """Width and height of an image in pixels."""

    width: int = Field(ge=1, le=65_535, examples=[900])
    height: int = Field(ge=1, le=65_535, examples=[900])


class Area(StoredSettings):
    """Polygons in the pixels of an image of a given size; pixels inside any of them count.

    Raises:
        ValidationError: a corner lies outside the image.
    """

    image: ImageSize = Field(
        description="Size of the image that the polygons were drawn on; they scale to other sizes."
    )
    polygons: list[Polygon] = Field(
        min_length=1,
        max_length=MAX_POINTS // 3,
        fail_fast=True,
        description="Corners (x, y) of each polygon, in pixels from the upper left.",
        examples=[[[[100, 100], [800, 100], [800, 700], [100, 700]]]],
    )

    @model_validator(mode="after")
    def _require_corners_in_image(self) -> Self:
        if sum(map(len, self.polygons)) > MAX_POINTS:
            raise ValueError(f"the polygons have more than {MAX_POINTS} corners together")
        for i, polygon in enumerate(self.polygons):
            if any(x > self.image.width or y > self.image.height for x, y in polygon):
                raise ValueError(f"polygon {i} reaches beyond the image")
        return self


class RatesChange(Body):
    """New rates. An omitted field keeps its value; null restores the default."""

    target_fpr: FalseRejectRate | None = Field(
        None,
        description="Share of good parts that may be rejected; null for the version's own rate.",
        examples=[0.005],
    )
    review_fpr: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None,
        description="Share of good parts that may be rejected or sent to a person; 0 for no review band, "
        "null for the version's own rate.",
        examples=[0.02],
    )
    audit_share: AuditShare | None = Field(
        None,
        description="Share of inspections drawn at random for review; null for the server's own.",
        examples=[0.01],
    )
    reason: str = Field(
        min_length=1,
        max_length=500,
        description="The reason, for the audit log.",
        examples=["Customer complaint 88"],
    )


class Rates(BaseModel):
    """The rates of a category, and the thresholds they give with its active version."""

    category: CategoryName
    version: VersionName = Field(description="The active version.")
    target_fpr: float | None = Field(
        description="The rate set; null for the version's own.", examples=[0.005]
    )
    review_fpr: float | None = Field(description="The rate set; null for the version's own.", examples=[0.02])
    audit_share: float | None = Field(description="The share set; null for the server's.", examples=[0.01])
    threshold: ThresholdInfo = Field(description="By the calibration for stations without one of their own.")


class RegionOfInterest(Area):
    """A region of interest: pixels outside it never count."""

    station: str | None = Field(
        description="null: for stations without a region of their own.", examples=["line-3"]
    )
    share: float = Field(description="Share of the active version's input that lies inside.", examples=[0.62])


class CalibrationOrigin(BaseModel):
    """The origin of a calibration that was made after its version."""

    created: datetime
    by: str = Field(description="The actor.", examples=["4f1d8a02c7b96e35 line engineer"])
    reason: str = Field(examples=["New lamp on line 3"])
    pictures: Sha256 = Field(description="Of the sorted SHA-256 of its images, one a line.")


class CalibrationInForce(BaseModel):
    """The calibration in use for a station's images, with the active version."""

    category: CategoryName
    version: VersionName = Field(description="The active version.")
    engine: str = Field(description="The engine of the calibration.", examples=["torch-cpu-float32"])
    station: str | None = Field(description="As requested.", examples=["line-3"])
    threshold: ThresholdInfo = Field(description="Its thresholds at the rates set.")
    origin: CalibrationOrigin | None = Field(description="null: it was made with the version.")
    stations: list[str] = Field(
        description="Stations with a calibration of their own.", examples=[["line-3"]]
    )


class NewCalibration(CalibrationInForce):
    """A new calibration, in force from now on, and its effect."""

    before: ThresholdInfo | None = Field(
        description="The thresholds until now; null if the version had no calibration for the engine."
    )
    pictures: int = Field(description="Good images it was made from.", examples=[210])
    left_out: int = Field(
        description="Images of the audit sample that were not used. The model was fitted to them, they "
        "were uploaded too, another image of the part was used, newer images filled the limit, or their "
        "files are deleted.",
        examples=[0],
    )
    warnings: list[str] = Field(
        description="Warnings for a person to check.",
        examples=[["score: higher than in the calibration before (distance 0.31, shift +0.40)"]],
    )
