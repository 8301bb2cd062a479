"""A job: its kind, state and progress."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from app.database import clock
from app.schemas import jobs as schemas
from app.schemas.jobs import JobKind, JobState

# A lane runs one job at a time. Ten images get their answer while another product trains.
LANES: Final[tuple[tuple[JobKind, ...], ...]] = (
    ("train", "evaluate", "learn"),
    ("starter", "calibrate", "compare", "check"),
)
TAUGHT: Final[tuple[JobKind, ...]] = ("starter", "train")  # kinds that make a version of a product's images


@dataclass(frozen=True)
class JobRecord:
    """A row of the table `jobs`; see there."""

    id: str
    created_ms: int
    kind: JobKind
    product: str
    actor: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    state: JobState = "queued"
    started_ms: int | None = None
    ended_ms: int | None = None
    share: float = 0.0
    stage: str | None = None
    seconds_left: float | None = None
    threads: int | None = None
    data_revision: int | None = None
    good: int | None = None
    resumed: int = 0
    attempts: int = 0
    result: Mapping[str, Any] | None = None
    error: str | None = None
    outcome: str | None = None
    done: int | None = None
    total: int | None = None
    owner: str | None = None
    cancel_requested: bool = False

    @property
    def has_ended(self) -> bool:
        return self.state in schemas.ENDED

    def to_schema(self, lines: Sequence[str] = ()) -> schemas.Job:
        at_ms = {"created": self.created_ms, "started": self.started_ms, "ended": self.ended_ms}
        times = {name: None if ms is None else clock.iso(ms) for name, ms in at_ms.items()}
        return schemas.Job.model_validate({**vars(self), **times, "lines": [*lines]})
