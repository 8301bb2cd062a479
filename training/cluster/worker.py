"""The part of a training on a cluster that runs on a node; loads torch only within a task."""

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from training.versions import library_versions

if TYPE_CHECKING:
    from training.run_all import CategoryResult

# A worker whose node lost its connection may be at work on the run for a while.
_LOCK_SECONDS: Final = 60
_PAUSE_SECONDS: Final = 0.2  # between two reports of a stage
Event = tuple[str, int, str, tuple[Any, ...]]
"""Category, attempt, name of a method of `train_on_cluster._Shown`, and its arguments."""


class Mailbox:
    """Events on their way from the workers to the command; an actor on the command's node."""

    def __init__(self) -> None:
        self._events: list[Event] = []

    def put(self, event: Event) -> None:
        """Add an event."""
        self._events.append(event)

    def take(self) -> list[Event]:
        """Remove and return all events."""
        events, self._events = self._events, []
        return events


def train_in_task(
    category: str,
    attempt: int,
    config: Mapping[str, Any],
    folders: tuple[Path, Path, Path],
    versions: Mapping[str, str],
    cwd: Path,
    options: Mapping[str, Any],
    mailbox: Any,
) -> "CategoryResult":
    """Train a category on this node, as the local command does.

    Args:
        config: the settings as JSON types, since a `RunConfig` loads torch.
        folders, versions: see `describe_fault`; the folders are those of data, models and runs.
        cwd: the command's working folder, for other paths in the settings.
        options: of `training.run.train`.
    """
    fault = describe_fault(folders, versions)
    from training.config.run_config import RunConfig
    from training.run_all import CategoryResult, train_category

    if fault is not None:
        return CategoryResult(category, "failed", reason=fault)
    with suppress(OSError):
        os.chdir(cwd)
    progress = _MailedProgress(category, attempt, mailbox)
    progress.send("begin", socket.gethostname())
    data, models, runs = folders
    places = {"models": models, "runs": runs, "progress": progress, "lock_seconds": _LOCK_SECONDS}
    return train_category(RunConfig.model_validate(config), data, category, **places, **options)


def describe_fault(folders: Sequence[Path], versions: Mapping[str, str]) -> str | None:
    """Describe why this node cannot compute what the command would; None if it can.

    Args:
        folders: absolute paths that it must see.
        versions: `library_versions()` of the command.
    """
    here, host = library_versions(), socket.gethostname()
    if other := [f"{name} {here[name]} instead of {v}" for name, v in versions.items() if here[name] != v]:
        return f"the node {host} has {', '.join(other)}: install the same versions on all nodes"
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        return (
            f"the node {host} does not see {', '.join(missing)}: --data, --models and --runs must be folders "
            "that all nodes share, under the same paths"
        )
    return None


class _MailedProgress:
    """Progress that is sent to the command."""

    def __init__(self, category: str, attempt: int, mailbox: Any) -> None:
        self._category, self._attempt, self._mailbox = category, attempt, mailbox

    def send(self, method: str, *arguments: Any) -> None:
        """Send an event and wait for its arrival."""
        import ray

        with suppress(ray.exceptions.RayError):  # a lost line must stop no training
            ray.get(self._mailbox.put.remote((self._category, self._attempt, method, arguments)), timeout=30)

    def say(self, line: str) -> None:
        """Send a line."""
        self.send("say", line)

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Callable[[float], None]]:
        """Send the steps of a stage, a few times a second."""
        told, pending = time.monotonic(), 0.0

        def advance(steps: float) -> None:
            nonlocal told, pending
            pending += steps
            if time.monotonic() >= told + _PAUSE_SECONDS:
                self.send("advance", pending)
                told, pending = time.monotonic(), 0.0

        self.send("begin_stage", title, total)
        yield advance
        self.send("advance", pending)
        self.send("end_stage")
