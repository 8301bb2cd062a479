"""Schemas of alternative thresholds, with the decisions they would have given."""

from pydantic import BaseModel, Field

from app.schemas.predict import Decision, ThresholdInfo
from app.schemas.reports import DecisionCounts, Rate
from app.schemas.timestamp import Timestamp


class DecisionChange(BaseModel):
    """Inspections that would have another decision."""

    taken: Decision = Field(description="The actual decision.")
    would: Decision = Field(description="The decision with the other thresholds.")
    inspections: int = Field(examples=[8])


class ProjectedDecisions(BaseModel):
    """Decisions that other thresholds would give the inspections in the window."""

    decisions: dict[Decision, int] = Field(
        description="Inspections by the decision they would have.",
        examples=[{"PASS": 952, "REVIEW": 30, "REJECT": 18}],
    )
    changed: int = Field(description="Inspections that would have another decision.", examples=[8])
    changes: list[DecisionChange] = Field(description="The same by decision.")
    overkill: Rate = Field(description="Share of good parts that would have been rejected, by reviews.")
    escape: Rate = Field(description="Share of defective parts that would have passed, by reviews.")


class RateOption(ProjectedDecisions):
    """A false-reject rate to choose."""

    target_fpr: float = Field(description="The rate.", examples=[0.01])
    in_force: bool = Field(description="Whether it is the rate in force.")
    settable: bool = Field(description="Whether it can be set: it must be below the rate of the review band.")
    threshold: ThresholdInfo = Field(description="The thresholds by the calibration in force.")


class Window(BaseModel):
    """The comparable inspections among the category's latest 10,000."""

    from_: Timestamp | None = Field(serialization_alias="from", description="Time of the oldest one.")
    inspections: int = Field(examples=[1000])
    decisions: dict[Decision, DecisionCounts] = Field(
        description="As they were decided, and what reviews say."
    )


class ScoreSamples(BaseModel):
    """Scores by which thresholds can be judged."""

    calibration: list[float] = Field(description="Of the good images of the calibration in force, sorted.")
    inspections: list[float] = Field(description="Of the latest inspections in the window, 1,000 at most.")
    defects: list[float] = Field(description="Of those among them that are reviewed as defects.")
    test_good: list[float] = Field(
        description="Of good test images in the version's latest evaluation by a job; empty without one, and "
        "with a region of interest, which evaluations ignore."
    )
    test_defects: list[float] = Field(description="Of its defective test images.")


class Outlook(BaseModel):
    """The effect of several false-reject rates on the latest inspections."""

    category: str = Field(examples=["bottle"])
    version: str = Field(description="The active version.", examples=["20261125T011500-3f9a2c"])
    engine: str = Field(description="The engine of the calibration.", examples=["torch-cpu-float32"])
    station: str | None = Field(description="As requested.", examples=["line-3"])
    stations: list[str] = Field(
        description="Stations with a calibration of their own; left out without `station`."
    )
    target_fpr: float = Field(description="The rate in force.", examples=[0.005])
    review_fpr: float | None = Field(
        description="The rate of the review band; null without one.", examples=[0.02]
    )
    window: Window
    scores: ScoreSamples
    positions: list[RateOption] = Field(description="By rate, the smallest first.")
