"""Decisions of the teacher: which job of a product is worthwhile now."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from app.jobs.job import TAUGHT, JobRecord
from app.schemas.jobs import JobKind
from flows.fastflow.config import MIN_GOOD_IMAGES

SERVES: Final = "The version serves."  # outcome of a job whose version took over

Origin = Literal["none", "starter", "trained", "elsewhere"]


@dataclass(frozen=True)
class Rule:
    """When a kind of job is due.

    Attributes:
        least: number of good images from which it is worthwhile.
        share: of the good images of the last such job; as many changes make another one worthwhile.
        quiet_seconds: without a change of images before another one, so that an upload is one change.
    """

    least: int
    share: float
    quiet_seconds: float


RULES: Final[Mapping[JobKind, Rule]] = {
    "starter": Rule(MIN_GOOD_IMAGES, 0.1, 3),
    "train": Rule(50, 0.25, 30),  # measured on grid alone (docs/research/accuracy.md)
}


@dataclass(frozen=True)
class Lesson:
    """State of a product that a decision depends on.

    Attributes:
        good: number of good images.
        revision: of the images: it grows with each change of images or labels.
        quiet_seconds: since the last change.
        active: see `find_origin`.
        last: the latest job of each kind, if any.
    """

    good: int
    revision: int
    quiet_seconds: float
    active: Origin
    last: Mapping[JobKind, JobRecord]


def find_origin(active: str | None, recent: Sequence[JobRecord]) -> Origin:
    """Return where the active version comes from: a starter or a training of the product, or elsewhere.

    What comes from elsewhere is a person's choice, which nothing replaces by itself: an uploaded version,
    one that has learned, or one from before the last takeover.

    Args:
        recent: the jobs of the product, newest first.
    """
    if active is None:
        return "none"
    for job in recent:
        if job.kind in TAUGHT and job.result:
            if job.result["version"] == active:
                return "starter" if job.kind == "starter" else "trained"
            if job.outcome == SERVES:
                break
    return "elsewhere"


def decide(lesson: Lesson) -> JobKind | None:
    """Decide which job to queue now, if any.

    A starter comes first: it answers in seconds. It is fitted again while images come, until a trained
    version serves. Then the flow is trained, and again once a quarter more images have changed.
    """
    if lesson.active == "elsewhere":
        return None
    if lesson.active != "trained" and _is_due("starter", lesson):
        return "starter"
    return "train" if _is_due("train", lesson) else None


def count_needed(lesson: Lesson) -> tuple[JobKind | None, int]:
    """Return the next kind of job, and the number of further good images until it is due."""
    if lesson.active == "elsewhere":
        return None, 0
    starter = lesson.last.get("starter")
    has_starter = starter is not None and starter.state in ("queued", "running", "succeeded")
    kind: JobKind = "starter" if lesson.active == "none" and not has_starter else "train"
    rule, last = RULES[kind], lesson.last.get(kind)
    return kind, max(0, rule.least - lesson.good, 0 if last is None else _changes_needed(kind, last, lesson))


def _is_due(kind: JobKind, lesson: Lesson) -> bool:
    rule, last = RULES[kind], lesson.last.get(kind)
    if lesson.good < rule.least:
        return False
    if last is None:
        return kind == "starter" or lesson.quiet_seconds >= rule.quiet_seconds
    return (
        last.has_ended
        and lesson.quiet_seconds >= rule.quiet_seconds
        and _changes_needed(kind, last, lesson) <= 0
    )


def _changes_needed(kind: JobKind, last: JobRecord, lesson: Lesson) -> int:
    """Return the number of changes, of images or labels, until another job of the kind is worthwhile."""
    assert last.good is not None  # noqa: S101  (each job that reads images has both)
    assert last.data_revision is not None  # noqa: S101
    made = max(lesson.revision - last.data_revision, abs(lesson.good - last.good))
    return max(1, round(RULES[kind].share * last.good)) - made
