from dataclasses import replace
from typing import Any

import pytest

from app.jobs.job import JobRecord
from app.jobs.teaching import SERVES, Lesson, Origin, count_needed, decide, find_origin
from app.schemas.jobs import JobKind

NEW = Lesson(good=10, revision=10, quiet_seconds=100, active="none", last={})


def ended(kind: JobKind, good: int, **changes: Any) -> JobRecord:
    values: dict[str, Any] = {"state": "succeeded", "good": good, "data_revision": good, **changes}
    return JobRecord("id", 1, kind, "bottle", "server", **values)


STARTER, TRAIN = ended("starter", 20), ended("train", 80)
LEARNING = replace(NEW, active="starter", last={"starter": STARTER})
TRAINED = replace(NEW, active="trained", last={"starter": STARTER, "train": TRAIN})


@pytest.mark.parametrize(
    ("lesson", "kind"),
    [
        (replace(NEW, good=9), None),
        (NEW, "starter"),
        (replace(NEW, quiet_seconds=0), "starter"),  # the first answer waits for nothing
        (replace(NEW, active="elsewhere", good=500), None),
        (replace(NEW, last={"starter": ended("starter", 10, state="running")}), None),
        (replace(NEW, last={"starter": ended("starter", 10, state="failed")}), None),
        (replace(LEARNING, good=21, revision=21), None),
        (replace(LEARNING, good=22, revision=22), "starter"),
        (replace(LEARNING, good=22, revision=22, quiet_seconds=1), None),
        (replace(LEARNING, good=20, revision=22), "starter"),  # labels were changed
        (replace(LEARNING, good=50, revision=50), "starter"),
        (replace(LEARNING, good=50, last={"starter": ended("starter", 50)}), "train"),
        (replace(LEARNING, good=50, quiet_seconds=20, last={"starter": ended("starter", 50)}), None),
        (replace(TRAINED, good=99, revision=99), None),
        (replace(TRAINED, good=100, revision=100), "train"),
        (replace(TRAINED, good=80, revision=100), "train"),
        (replace(TRAINED, good=200, last={"train": replace(TRAIN, state="cancelled")}), "train"),
        (replace(TRAINED, good=200, last={"train": replace(TRAIN, state="queued")}), None),
    ],
)
def test_decision(lesson: Lesson, kind: JobKind | None) -> None:
    assert decide(lesson) == kind


@pytest.mark.parametrize(
    ("lesson", "kind", "needed"),
    [
        (replace(NEW, good=4), "starter", 6),
        (NEW, "starter", 0),
        (replace(LEARNING, good=21), "train", 29),
        (replace(TRAINED, good=81, revision=81), "train", 19),
        (replace(TRAINED, active="elsewhere"), None, 0),
    ],
)
def test_countdown(lesson: Lesson, kind: JobKind | None, needed: int) -> None:
    assert count_needed(lesson) == (kind, needed)


@pytest.mark.parametrize(
    ("active", "origin"),
    [
        (None, "none"),
        ("refused", "trained"),  # activated by hand, as its outcome says
        ("serving", "trained"),
        ("starter", "elsewhere"),  # somebody went back
        ("upload", "elsewhere"),
    ],
)
def test_origin_of_the_active_version(active: str | None, origin: Origin) -> None:
    recent = [
        ended("train", 90, state="running"),
        ended("check", 80, result={}),
        ended("train", 80, result={"version": "refused"}, outcome="The active version finds more."),
        ended("train", 60, result={"version": "serving"}, outcome=SERVES),
        ended("starter", 50, result={"version": "starter"}, outcome=SERVES),
    ]
    assert find_origin(active, recent) == origin
