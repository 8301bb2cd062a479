"""Schemas of reports: rates, shifts, drift."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.history import InspectionSummary
from app.schemas.predict import Decision
from app.schemas.timestamp import Timestamp


class DecisionCounts(BaseModel):
    """The inspections with one decision."""

    inspections: int = Field(examples=[812])
    reviewed_good: int = Field(description="Of them, reviewed as good.", examples=[40])
    reviewed_defect: int = Field(description="Of them, reviewed as defective.", examples=[0])

    @property
    def reviewed(self) -> int:
        """How many were reviewed."""
        return self.reviewed_good + self.reviewed_defect


class Rate(BaseModel):
    """A rate with its confidence interval of 95 %."""

    value: float | None = Field(description="The estimate; null where it cannot be known.", examples=[0.0061])
    low: float | None = Field(examples=[0.0032])
    high: float | None = Field(examples=[0.0117])
    reason: str | None = Field(description="Why it cannot be known.", examples=["there are no inspections"])


class _Rated(BaseModel):
    decisions: dict[Decision, DecisionCounts] = Field(
        description="Inspections and their reviews, by decision."
    )
    overkill: Rate = Field(description="Share of good parts that are rejected.")
    escape: Rate = Field(description="Share of defective parts that pass.")


class ErrorRates(_Rated):
    """Overkill and escape of a category, as far as reviews tell."""

    category: str = Field(examples=["bottle"])
    from_: Timestamp = Field(
        serialization_alias="from",
        description="Later than asked for where retention has deleted inspections by age: what is left would "
        "mislead.",
    )
    to: Timestamp = Field(description="Inspections made before.")


class StationCounts(BaseModel):
    """The inspections of a station."""

    station: str | None = Field(description="null: of none.", examples=["line-3"])
    decisions: dict[Decision, int] = Field(examples=[{"PASS": 812, "REVIEW": 9, "REJECT": 8}])


class HourCounts(BaseModel):
    """The inspections of an hour."""

    from_: Timestamp = Field(serialization_alias="from", description="Its begin.")
    decisions: dict[Decision, int] = Field(examples=[{"PASS": 101, "REVIEW": 1, "REJECT": 2}])


class DriftNow(BaseModel):
    """Whether the latest inspections still look like the calibration images."""

    model_config = ConfigDict(from_attributes=True)

    alarm: bool
    alarm_since: Timestamp | None = Field(description="When the inspection was made that raised the alarm.")
    station: str | None = Field(description="The one that alarms, of those with an own calibration.")


class ShiftChange(BaseModel):
    """Something that was changed about models or decisions, from the audit log."""

    created: Timestamp
    actor: str = Field(description="Who did it.", examples=["4f1d8a02c7b96e35 line engineer"])
    action: str = Field(
        description="model.thresholds, model.region, model.calibrate, model.activate or model.rollback; "
        "model.serves where a version serves that this service did not activate, but a training, say.",
        examples=["model.thresholds"],
    )
    target: str = Field(examples=["bottle"])
    station: str | None = Field(description="Where it is about one.", examples=["line-3"])
    reason: str | None = Field(description="As it was given.", examples=["Customer complaint 88"])
    before: dict[str, Any] | None = Field(
        description="The rates, the threshold or the version that held before; of a region, whether one "
        "was there: `set` or `none`. Null where it is not known.",
        examples=[{"target_fpr": 0.01, "review_fpr": None}],
    )
    after: dict[str, Any] | None = Field(description="What held afterwards; as `before`.")


class ShiftDetails(BaseModel):
    """A category's shift by station and hour, and its worst parts."""

    stations: list[StationCounts] = Field(description="By name; inspections of none come first.")
    hours: list[HourCounts] = Field(description="Those of which something was inspected, the earliest first.")
    rejects: list[InspectionSummary] = Field(description="The six that are least like good parts.")


class ShiftCategory(ShiftDetails, _Rated):
    """A category in a shift."""

    category: str = Field(examples=["bottle"])
    versions: dict[str, int] = Field(
        description="How many inspections each version answered.", examples=[{"20261125T011500-3f9a2c": 829}]
    )
    drift: DriftNow | None = Field(description="As it is now; null without an active version.")


class ShiftReport(BaseModel):
    """What was inspected in a time."""

    from_: Timestamp = Field(
        serialization_alias="from",
        description="Later than asked for where retention has deleted inspections by age.",
    )
    to: Timestamp = Field(description="Inspections made before.")
    station: str | None = Field(examples=["line-3"])
    categories: list[ShiftCategory] = Field(description="Those of which something was inspected.")
    changes: list[ShiftChange] = Field(
        description="What was changed in this time, the earliest first; of more than a hundred the latest."
    )
    more_changes: bool = Field(description="Whether there are earlier ones.")


class DriftStatistic(BaseModel):
    """The inspections of the window and the calibration images, compared in one number of each."""

    model_config = ConfigDict(from_attributes=True)

    name: str = Field(description="`score`, or features of a scale.", examples=["features of scale 0, mean"])
    inspections: int = Field(examples=[200])
    n_calibration: int = Field(examples=[30])
    distance: float = Field(description="Kolmogorov-Smirnov distance, in [0, 1].", examples=[0.11])
    alarm_distance: float | None = Field(
        description="From here on it is an alarm; null where the calibration images are too few for one."
    )
    shift: float = Field(
        description="Chance that an inspection is above a calibration image less that it is below.",
        examples=[0.04],
    )
    p_value: float = Field(
        description="Chance of such a distance without drift, corrected for the number of comparisons.",
        examples=[1.0],
    )


class DriftReport(BaseModel):
    """Whether the latest inspections still look like the calibration images."""

    category: str = Field(examples=["bottle"])
    version: str = Field(description="The version that serves.", examples=["20261125T011500-3f9a2c"])
    alarm: bool
    alarm_since: Timestamp | None = Field(description="When the inspection was made that raised the alarm.")
    window: int = Field(description="Inspections compared, once there are so many.", examples=[200])
    inspections: int = Field(description="Inspections in the window.", examples=[200])
    since: Timestamp | None = Field(description="When the oldest of them was made.")
    station: str | None = Field(
        description="The station, if it has a calibration of its own; null for all that have none."
    )
    alarming_stations: list[str] = Field(
        description="Those with a calibration of their own whose inspections differ from its images."
    )
    statistics: list[DriftStatistic] = Field(
        description="As of the last look, twenty of which fall into a window; none before the first."
    )
