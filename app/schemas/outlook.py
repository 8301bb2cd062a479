"""Schemas of thresholds that could be set: what they promise, and the decisions they would have given."""

from pydantic import BaseModel, Field

from app.schemas.predict import Decision, ThresholdInfo
from app.schemas.reports import DecisionCounts, Rate
from app.schemas.timestamp import Timestamp


class RateInterval(BaseModel):
    """Where a rate is to be expected, in 95 of 100 cases."""

    low: float = Field(examples=[0.0011])
    high: float = Field(examples=[0.0244])


class DecisionChange(BaseModel):
    """Inspections that would have been decided otherwise."""

    taken: Decision = Field(description="The decision that was taken.")
    would: Decision = Field(description="The decision that would have been taken.")
    inspections: int = Field(examples=[8])


class ProjectedDecisions(BaseModel):
    """Decisions that other thresholds would have given the inspections in the window."""

    decisions: dict[Decision, int] = Field(
        description="Inspections by the decision that they would have had.",
        examples=[{"PASS": 952, "REVIEW": 30, "REJECT": 18}],
    )
    changed: int = Field(description="How many would have been decided otherwise.", examples=[8])
    changes: list[DecisionChange] = Field(description="The same by decision.")
    overkill: Rate = Field(description="Share of good parts that would have been rejected, by reviews.")
    escape: Rate = Field(description="Share of defective parts that would have passed, by reviews.")


class RateOption(ProjectedDecisions):
    """A false-reject rate that could be set."""

    target_fpr: float = Field(description="The rate.", examples=[0.01])
    in_force: bool = Field(description="Whether it is the rate that is in force.")
    settable: bool = Field(
        description="Whether it can be set: a review band counts rejected parts too, so it must be wider."
    )
    threshold: ThresholdInfo = Field(description="The thresholds by the calibration in force.")
    expected: RateInterval = Field(
        description="Where the share of good parts that are really rejected is to be expected: each "
        "calibration gives another one, by a Beta law. From 0 where the category has a region of interest, "
        "which may lower it by any amount."
    )


class Window(BaseModel):
    """The inspections that are looked at: those that compare, of the category's latest 10,000."""

    from_: Timestamp | None = Field(serialization_alias="from", description="When the oldest was made.")
    inspections: int = Field(examples=[1000])
    decisions: dict[Decision, DecisionCounts] = Field(
        description="As they were decided, and what reviews say."
    )


class Outlook(BaseModel):
    """What each of some false-reject rates would do, and would have done."""

    category: str = Field(examples=["bottle"])
    version: str = Field(description="The active version.", examples=["20261125T011500-3f9a2c"])
    engine: str = Field(description="The engine whose calibration it is.", examples=["torch-cpu-float32"])
    station: str | None = Field(description="As asked for.", examples=["line-3"])
    stations: list[str] = Field(
        description="Stations that have a calibration of their own; without `station` they are left out."
    )
    target_fpr: float = Field(description="The rate in force.", examples=[0.005])
    review_fpr: float | None = Field(
        description="That of the review band, null without one.", examples=[0.02]
    )
    window: Window
    positions: list[RateOption] = Field(description="By rate, the smallest first.")
