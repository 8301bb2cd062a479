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
        return self.reviewed_good + self.reviewed_defect


class Rate(BaseModel):
    """A rate with its confidence interval of 95 %."""

    value: float | None = Field(description="The estimate; null if there is none.", examples=[0.0061])
    low: float | None = Field(examples=[0.0032])
    high: float | None = Field(examples=[0.0117])
    reason: str | None = Field(
        description="The reason why there is no estimate.", examples=["there are no inspections"]
    )


class _Estimates(BaseModel):
    decisions: dict[Decision, DecisionCounts] = Field(
        description="Inspections and their reviews, by decision."
    )
    overkill: Rate = Field(description="Share of good parts that are rejected.")
    escape: Rate = Field(description="Share of defective parts that pass.")


class AuditRates(_Estimates):
    """Overkill and escape, estimated from the audit sample alone."""

    from_: Timestamp = Field(
        serialization_alias="from",
        description="Start of its time. Retention keeps the sample longer than other inspections.",
    )
    unreviewed: int = Field(
        description="Inspections of the sample without a review. Skipping some on purpose biases the rates.",
        examples=[3],
    )


class ErrorEstimates(_Estimates):
    """Overkill and escape, estimated from all reviews and from the audit sample."""

    audit: AuditRates | None = Field(
        description="The same from the audit sample alone; null if nothing was drawn."
    )


class ErrorRates(ErrorEstimates):
    """Overkill and escape of a category, estimated from reviews."""

    category: str = Field(examples=["bottle"])
    from_: Timestamp = Field(
        serialization_alias="from",
        description="Later than requested if retention has deleted inspections by age: the rest would be "
        "biased.",
    )
    to: Timestamp = Field(description="Inspections made before.")


class StationCounts(BaseModel):
    """The inspections of a station."""

    station: str | None = Field(description="null: without a station.", examples=["line-3"])
    decisions: dict[Decision, int] = Field(examples=[{"PASS": 812, "REVIEW": 9, "REJECT": 8}])


class HourCounts(BaseModel):
    """The inspections of an hour."""

    from_: Timestamp = Field(serialization_alias="from", description="Start of the hour.")
    decisions: dict[Decision, int] = Field(examples=[{"PASS": 101, "REVIEW": 1, "REJECT": 2}])


class DriftSummary(BaseModel):
    """The drift alarm of a category."""

    model_config = ConfigDict(from_attributes=True)

    alarm: bool
    alarm_since: Timestamp | None = Field(description="Time of the inspection that raised the alarm.")
    station: str | None = Field(description="The station with the alarm, if it has its own calibration.")


class ShiftChange(BaseModel):
    """A change of models, thresholds or regions, from the audit log."""

    created: Timestamp
    actor: str = Field(description="The actor in the audit log.", examples=["4f1d8a02c7b96e35 line engineer"])
    action: str = Field(
        description="model.thresholds, model.region, model.calibrate, model.activate or model.rollback; "
        "model.serves for a version that another process activated, such as a training.",
        examples=["model.thresholds"],
    )
    target: str = Field(examples=["bottle"])
    station: str | None = Field(description="The station, if the change is for one.", examples=["line-3"])
    reason: str | None = Field(description="The actor's reason.", examples=["Customer complaint 88"])
    before: dict[str, Any] | None = Field(
        description="The rates, the threshold or the version before the change; for a region, `set` or "
        "`none`. Null if unknown.",
        examples=[{"target_fpr": 0.01, "review_fpr": None}],
    )
    after: dict[str, Any] | None = Field(description="The same after the change.")


class KindCount(BaseModel):
    """The inspections reviewed as a kind of defect."""

    kind: str | None = Field(description="null: of no kind.", examples=["scratch"])
    inspections: int = Field(examples=[12])
    share: float = Field(description="Of the inspections reviewed as defects.", examples=[0.6])
    cumulative_share: float = Field(description="Of this and the more frequent kinds.", examples=[0.6])


class ShiftDetails(BaseModel):
    """A category's shift by station and hour, and its worst parts."""

    stations: list[StationCounts] = Field(description="By name; inspections without a station come first.")
    hours: list[HourCounts] = Field(description="Hours with inspections, the earliest first.")
    rejects: list[InspectionSummary] = Field(description="The six rejects least like good parts.")
    kinds: list[KindCount] = Field(
        description="Inspections reviewed as defects by kind, the most frequent first (Pareto)."
    )


class ShiftCategory(ShiftDetails, ErrorEstimates):
    """A category in a shift."""

    category: str = Field(examples=["bottle"])
    versions: dict[str, int] = Field(
        description="Number of inspections by version.", examples=[{"20261125T011500-3f9a2c": 829}]
    )
    drift: DriftSummary | None = Field(description="The present state; null without an active version.")


class ShiftReport(BaseModel):
    """The inspections of a period, by category, and the changes in it."""

    from_: Timestamp = Field(
        serialization_alias="from",
        description="Later than requested if retention has deleted inspections by age.",
    )
    to: Timestamp = Field(description="End of the period, exclusive.")
    station: str | None = Field(examples=["line-3"])
    categories: list[ShiftCategory] = Field(description="Categories with inspections.")
    changes: list[ShiftChange] = Field(
        description="Changes in this period, the earliest first; at most the latest hundred."
    )
    more_changes: bool = Field(description="Whether there are earlier changes.")


class DriftStatistic(BaseModel):
    """A statistic that compares inspections in the window with calibration images."""

    model_config = ConfigDict(from_attributes=True)

    name: str = Field(description="`score`, or features of a scale.", examples=["features of scale 0, mean"])
    inspections: int = Field(examples=[200])
    n_calibration: int = Field(examples=[30])
    distance: float = Field(description="Kolmogorov-Smirnov distance, in [0, 1].", examples=[0.11])
    alarm_distance: float | None = Field(
        description="Distance that raises an alarm; null with too few calibration images."
    )
    shift: float = Field(
        description="Probability that an inspection is above a calibration image, minus that it is below.",
        examples=[0.04],
    )
    p_value: float = Field(
        description="Probability of this distance without drift, corrected for the number of comparisons.",
        examples=[1.0],
    )


class DriftReport(BaseModel):
    """Comparison of the latest inspections with the calibration images."""

    category: str = Field(examples=["bottle"])
    version: str = Field(description="The version that serves.", examples=["20261125T011500-3f9a2c"])
    alarm: bool
    alarm_since: Timestamp | None = Field(description="Time of the inspection that raised the alarm.")
    window: int = Field(description="Size of the window; comparison starts when it is full.", examples=[200])
    inspections: int = Field(description="Inspections in the window.", examples=[200])
    since: Timestamp | None = Field(description="Time of the oldest one.")
    station: str | None = Field(
        description="The station, if it has its own calibration; null for all others together."
    )
    alarming_stations: list[str] = Field(description="Stations with their own calibration and an alarm.")
    statistics: list[DriftStatistic] = Field(
        description="As of the last comparison, of which there are twenty per window; empty before the first."
    )
