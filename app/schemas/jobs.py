"""Schemas of jobs: trainings and other commands that run beside serving."""

from datetime import datetime
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field, StringConstraints

from .body import Body
from .texts import MAX_TEXT, TEXT_PATTERN
from .timestamp import Timestamp

JobKind = Literal["starter", "train", "evaluate", "calibrate", "learn", "compare", "check"]
JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
ENDED: tuple[JobState, ...] = get_args(JobState)[2:]

JobId = Annotated[str, Field(examples=["0193a6b2-7c1e-7d4f-8a53-5d1d3b7a8c11"])]
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
_Product = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$"),
    Field(description="Category that the job is for.", examples=["bottle"]),
]
_Rate = Annotated[
    float | None,
    Field(gt=0, le=0.5, description="Share of good parts that may be rejected.", examples=[0.01]),
]
_Seed = Annotated[int | None, Field(ge=0, lt=2**31, description="Seed of the split and of the fit.")]
_Version = Annotated[
    str | None,
    StringConstraints(pattern=_NAME),
    Field(description="Version; by default the active one.", examples=["20261125T011500-3f9a2c"]),
]


class JobSettings(Body):
    """Settings of a job without any."""


class StarterSettings(JobSettings):
    """Settings of a starter version."""

    target_fpr: _Rate = None
    seed: _Seed = None


class TrainSettings(StarterSettings):
    """Settings of a training; what is missing follows from the preset."""

    preset: Annotated[
        str | None,
        StringConstraints(pattern=_NAME),
        Field(description="A preset of `flowgauge backbones list`.", examples=["efficientnet-lite0"]),
    ] = None
    epochs: Annotated[int | None, Field(ge=1, le=1000, description="Passes over the images.")] = None


class EvaluateSettings(JobSettings):
    """Settings of an evaluation."""

    version: _Version = None


class CalibrateSettings(EvaluateSettings):
    """Settings of a calibration with the product's good images."""

    station: Annotated[
        str | None,
        StringConstraints(min_length=1, max_length=MAX_TEXT, pattern=TEXT_PATTERN),
        Field(description="Calibrate only this station.", examples=["line-3"]),
    ] = None


class LearnSettings(EvaluateSettings):
    """Settings of learning."""

    since: Annotated[
        datetime | None, Field(description="Only inspections from this time on; UTC unless it has an offset.")
    ] = None


class CompareSettings(JobSettings):
    """Versions to compare."""

    version: Annotated[
        str,
        StringConstraints(pattern=_NAME),
        Field(description="Version that may become active.", examples=["20261202T084506-144bed"]),
    ]
    against: _Version = None


class _NewJob(Body):
    product: _Product


class StarterJob(_NewJob):
    """Fit a starter version, without a flow, in seconds."""

    kind: Literal["starter"]
    settings: StarterSettings = StarterSettings()


class TrainingJob(_NewJob):
    """Train a version."""

    kind: Literal["train"]
    settings: TrainSettings = TrainSettings()


class EvaluationJob(_NewJob):
    """Measure a version on the product's test images."""

    kind: Literal["evaluate"]
    settings: EvaluateSettings = EvaluateSettings()


class CalibrationJob(_NewJob):
    """Calibrate a version with the product's good images that it was not fitted to."""

    kind: Literal["calibrate"]
    settings: CalibrateSettings = CalibrateSettings()


class LearningJob(_NewJob):
    """Make a version that has learned from reviewed inspections of the category.

    Nothing is trained: a small part is added to the scores of the version. Thresholds follow from the
    calibration of its training, with images that this part has not seen, so they keep their promise even if
    reviews are wrong. It does not serve until it is activated. Later calibrations refuse the images learned
    from.
    """

    kind: Literal["learn"]
    settings: LearnSettings = LearnSettings()


class ComparisonJob(_NewJob):
    """Compare two versions on the product's images that neither was fitted to.

    The result has `good` and `defective`, the numbers of images, and `before` and `after`: what each version
    rejects and passes. `images` are those on which they decide differently.
    """

    kind: Literal["compare"]
    settings: CompareSettings


class CheckJob(_NewJob):
    """Find copies, outliers and wrong sizes among the product's images."""

    kind: Literal["check"]
    settings: JobSettings = JobSettings()


NewJob = Annotated[
    StarterJob | TrainingJob | EvaluationJob | CalibrationJob | LearningJob | ComparisonJob | CheckJob,
    Field(discriminator="kind"),
]


class Job(BaseModel):
    """A job and its progress."""

    id: JobId
    kind: JobKind
    product: str = Field(examples=["bottle"])
    settings: dict[str, Any] = Field(
        description="As sent, without what was left out, and the version that the job is for."
    )
    state: JobState
    share: float = Field(description="Share of the job that is done.", ge=0, le=1, examples=[0.41])
    stage: str | None = Field(
        description="data, features, fit, calibrate, describe, publish, evaluate or learn; null "
        "before the first.",
        examples=["fit"],
    )
    done: int | None = Field(description="Steps done in the stage, such as epochs.", examples=[16])
    total: int | None = Field(description="Steps of the stage.", examples=[39])
    seconds_left: float | None = Field(description="Estimate; null while unknown.", examples=[312])
    created: Timestamp
    started: Timestamp | None
    ended: Timestamp | None
    good: int | None = Field(
        description="Good images of the product at the job's start; null if it reads reviewed inspections.",
        examples=[87],
    )
    actor: str = Field(description="The key that started it, or `server`.", examples=["server"])
    result: dict[str, Any] | None = Field(description="What the command reported; null before the end.")
    error: str | None = Field(description="Why it failed.")
    outcome: str | None = Field(description="What became of the new version.", examples=["it serves"])
    threads: int | None = Field(description="CPU threads of its command; null before it begins.")
    resumed: int = Field(description="Times it was resumed after an interruption.")
    lines: list[str] = Field([], description="Last lines of its log; empty in lists and events.")


class Teaching(BaseModel):
    """Jobs of a product, and the next one that begins by itself."""

    next: JobKind | None = Field(
        description="The job that begins by itself; null if none does: the takeover is manual, or the active "
        "version was not made by a job of the product."
    )
    needed: int = Field(description="Good images until then; 0 if it begins soon.", examples=[7])
    jobs: list[Job] = Field(description="Jobs that wait or run, newest first.")
    last: Job | None = Field(description="The last starter or training that ended.")
    target_fpr: float = Field(description="Share of good parts that may be rejected.", examples=[0.01])
    promised_fpr: float | None = Field(
        description="Share that the active version can promise; null without one.", examples=[0.0323]
    )
    missing_for_target: int = Field(
        description="Good images that a training needs besides, to promise `target_fpr`.", examples=[63]
    )


class JobLines(BaseModel):
    """New lines of a job's log."""

    lines: list[str]


class JobPage(BaseModel):
    """A page of jobs, newest first."""

    jobs: list[Job]
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page; null at the end.")
