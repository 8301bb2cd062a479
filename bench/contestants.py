"""Contestants: child processes with their own memory and threads, timed in turns."""

import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Self

from bench.interleaving import interleave
from bench.memory import peak_bytes
from bench.report import Figures, Table, milliseconds

ROOT = Path(__file__).parents[1]
_STOP_SECONDS = 30.0


class ContestantError(ValueError):
    """A contestant did not load or ended early; the message holds the end of its log."""


@dataclass(frozen=True)
class TimedCalls:
    """Timings of the calls of one turn.

    Attributes:
        seconds: of each call.
        cpu: CPU seconds of all calls together.
        images: inspected by one call.
    """

    seconds: Sequence[float]
    cpu: float
    images: int = 1

    @property
    def milliseconds(self) -> float:
        """Milliseconds per image of the median call."""
        return 1000 * statistics.median(self.seconds) / self.images

    @property
    def cpu_milliseconds(self) -> float:
        """Mean CPU milliseconds per image."""
        return 1000 * self.cpu / (self.images * len(self.seconds))


class Contestant:
    """A child process that serves timing requests (`bench.task_server`); a context manager.

    Args:
        name: shown in tables.
        command: starts the process.
        log: file for its standard error.
        threads: number of OpenMP threads.

    Attributes:
        tasks: its tasks, and the images of one call of each.

    Raises:
        ContestantError: the process ended before it was loaded.
    """

    def __init__(self, name: str, command: Sequence[str], log: Path, threads: int) -> None:
        self.name = name
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        # The user's own settings would distort the figures.
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("FLOWGAUGE_")}
        ours = {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                env=inherited | ours,
                text=True,
                bufsize=1,
            )
        try:
            self.tasks: dict[str, int] = self._read()
        except BaseException:
            self._stop()
            raise

    @property
    def peak_bytes(self) -> int:
        """Largest resident set so far."""
        return peak_bytes(self._process.pid)

    def measure(self, task: str, seconds: float, min_calls: int = 2) -> TimedCalls:
        """Repeat a task for some seconds, and at least `min_calls` times.

        Raises:
            ContestantError: the process ended.
        """
        request = {"task": task, "seconds": seconds, "min_calls": min_calls}
        try:
            self._pipe(self._process.stdin).write(json.dumps(request) + "\n")
        except (BrokenPipeError, ValueError) as error:  # the process has ended, or its pipe was closed then
            raise ContestantError(self._end_of_log()) from error
        answer = self._read()
        return TimedCalls(answer["seconds"], answer["cpu"], self.tasks[task])

    def _read(self) -> dict[str, Any]:
        line = self._pipe(self._process.stdout).readline()
        if not line:
            self._stop()
            raise ContestantError(self._end_of_log())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _end_of_log(self) -> str:
        end = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
        return f"{self.name} ended; the end of {self._log}:\n{end}"

    def _stop(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):  # the process ended without reading a request
                self._pipe(pipe).close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None  # noqa: S101
        return pipe


@dataclass
class Results:
    """Timings of all contestants.

    Attributes:
        timings: by contestant and task, one entry per round.
        peaks: peak memory in bytes by contestant.
    """

    timings: dict[tuple[str, str], list[TimedCalls]]
    peaks: dict[str, int]

    def per_round(self, name: str, task: str) -> list[float]:
        """Return the milliseconds per image, round by round."""
        return [timed.milliseconds for timed in self.timings[name, task]]

    def cpu_per_round(self, name: str, task: str) -> list[float]:
        """Return the CPU milliseconds per image, round by round; other programs disturb them less."""
        return [timed.cpu_milliseconds for timed in self.timings[name, task]]

    def table(self, title: str, single: str, heading: str) -> Table:
        """Build a table with a row per contestant: batches, the task `single`, and memory."""
        header = ["", "batch of 8: ms an image", "images a second", "CPU ms an image"]
        rows = []
        for name, peak in self.peaks.items():
            each = statistics.median(self.per_round(name, "batch"))
            cpu = statistics.median(self.cpu_per_round(name, "batch"))
            row = [name, f"{each:.2f}", f"{1000 / each:.1f}", f"{cpu:.2f}"]
            row.append(format_quantiles([timed.seconds for timed in self.timings[name, single]]))
            rows.append([*row, f"{peak / 2**20:.0f}"])
        return Table(title, [*header, f"{heading}: p50 / p95 / p99 ms", "peak MiB"], rows)

    def figures(self) -> Figures:
        """Return every single measurement, by contestant and task."""
        found: Figures = {name: {"peak_bytes": peak} for name, peak in self.peaks.items()}
        for (name, task), timings in self.timings.items():
            found[name][task] = [
                {"images": timed.images, "cpu": timed.cpu, "seconds": list(timed.seconds)}
                for timed in timings
            ]
        return found


def format_quantiles(rounds: Iterable[Sequence[float]]) -> str:
    """Format p50 / p95 / p99 in milliseconds over the seconds of all rounds."""
    found = milliseconds([seconds for one_round in rounds for seconds in one_round])
    return " / ".join(f"{found[p]:.1f}" for p in ("p50", "p95", "p99"))


def measure_in_turns(
    contestants: Iterable[Contestant], tasks: Sequence[str], rounds: int, seconds: float
) -> Results:
    """Measure all tasks of all contestants, `seconds` each, in interleaved rounds."""
    by_name = {one.name: one for one in contestants}

    def measure_tasks(one: Contestant) -> dict[str, TimedCalls]:
        timings = {task: one.measure(task, seconds) for task in tasks}
        for task, timed in timings.items():
            print(f"{one.name}, {task}: {timed.milliseconds:.1f} ms an image", file=sys.stderr, flush=True)
        return timings

    found = interleave({name: partial(measure_tasks, one) for name, one in by_name.items()}, rounds)
    timings = {
        (name, task): [one_round[task] for one_round in by_round]
        for name, by_round in found.items()
        for task in tasks
    }
    return Results(timings, {name: one.peak_bytes for name, one in by_name.items()})


def start_contestants(
    stack: ExitStack, commands: Iterable[tuple[str, Sequence[str]]], logs: Path, threads: int
) -> list[Contestant]:
    """Start contestants, given by (name, command), one after the other; the stack stops them.

    Args:
        stack: entered with each contestant.
        commands: name and command of each.
        logs: folder of their log files.
        threads: number of OpenMP threads of each.
    """
    found = []
    for name, command in commands:
        print(f"loading {name}", file=sys.stderr, flush=True)
        file = logs / f"{name.replace(' ', '-').replace('/', '-')}.log"
        found.append(stack.enter_context(Contestant(name, command, file, threads)))
    return found
