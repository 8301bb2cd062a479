"""Processes that are timed in turns, each with memory, threads and an interpreter of its own."""

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

from bench.memory import peak_bytes
from bench.report import Figures, Table, milliseconds
from bench.turns import in_turns

ROOT = Path(__file__).parents[1]
_STOP_SECONDS = 30.0


class ContestantError(ValueError):
    """A contestant could not be loaded or ended early; the message holds the end of its log."""


@dataclass(frozen=True)
class Turn:
    """Seconds of each call of a turn, CPU seconds of all of them, and the images that a call inspects."""

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
    """A process with something loaded, see `answering`; a context manager.

    Args:
        name: for tables.
        command: that starts it.
        log: file of what it prints beside its answers.
        threads: of OpenMP.

    Attributes:
        works: what it can do, and the images of each call.

    Raises:
        ContestantError: it ended before it was loaded.
    """

    def __init__(self, name: str, command: Sequence[str], log: Path, threads: int) -> None:
        self.name = name
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        # Settings of the user would change what a figure means.
        outside = {key: value for key, value in os.environ.items() if not key.startswith("FLOWGAUGE_")}
        ours = {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                env=outside | ours,
                text=True,
                bufsize=1,
            )
        try:
            self.works: dict[str, int] = self._read()
        except BaseException:
            self._end()
            raise

    @property
    def peak_bytes(self) -> int:
        """The largest resident set so far."""
        return peak_bytes(self._process.pid)

    def turn(self, work: str, seconds: float, least: int = 2) -> Turn:
        """Do a work for some seconds, and at least `least` times.

        Raises:
            ContestantError: the process ended.
        """
        request = {"work": work, "seconds": seconds, "least": least}
        try:
            self._pipe(self._process.stdin).write(json.dumps(request) + "\n")
        except (BrokenPipeError, ValueError) as error:  # it has ended, or its pipe was closed after it had
            raise ContestantError(self._why()) from error
        said = self._read()
        return Turn(said["seconds"], said["cpu"], self.works[work])

    def _read(self) -> dict[str, Any]:
        line = self._pipe(self._process.stdout).readline()
        if not line:
            self._end()
            raise ContestantError(self._why())
        found: dict[str, Any] = json.loads(line)
        return found

    def _why(self) -> str:
        end = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
        return f"{self.name} ended; the end of {self._log}:\n{end}"

    def _end(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):  # a request that an ended process has not read
                self._pipe(pipe).close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None  # noqa: S101
        return pipe


@dataclass
class Results:
    """Turns by contestant and work, one per round, and each contestant's peak of memory in bytes."""

    turns: dict[tuple[str, str], list[Turn]]
    peaks: dict[str, int]

    def per_round(self, name: str, work: str) -> list[float]:
        """Milliseconds per image, round by round."""
        return [turn.milliseconds for turn in self.turns[name, work]]

    def cpu_per_round(self, name: str, work: str) -> list[float]:
        """CPU milliseconds per image, round by round: other programs disturb them less."""
        return [turn.cpu_milliseconds for turn in self.turns[name, work]]

    def table(self, title: str, single: str, heading: str) -> Table:
        """A line per contestant: batches, another work under its own heading, and memory."""
        header = ["", "batch of 8: ms an image", "images a second", "CPU ms an image"]
        rows = []
        for name, peak in self.peaks.items():
            each = statistics.median(self.per_round(name, "batch"))
            cpu = statistics.median(self.cpu_per_round(name, "batch"))
            row = [name, f"{each:.2f}", f"{1000 / each:.1f}", f"{cpu:.2f}"]
            row.append(quantiles([turn.seconds for turn in self.turns[name, single]]))
            rows.append([*row, f"{peak / 2**20:.0f}"])
        return Table(title, [*header, f"{heading}: p50 / p95 / p99 ms", "peak MiB"], rows)

    def figures(self) -> Figures:
        """Every single measurement, by contestant and work."""
        found: Figures = {name: {"peak_bytes": peak} for name, peak in self.peaks.items()}
        for (name, work), turns in self.turns.items():
            found[name][work] = [
                {"images": turn.images, "cpu": turn.cpu, "seconds": list(turn.seconds)} for turn in turns
            ]
        return found


def quantiles(turns: Iterable[Sequence[float]]) -> str:
    """p50 / p95 / p99 in milliseconds over all the seconds of some turns."""
    found = milliseconds([seconds for turn in turns for seconds in turn])
    return " / ".join(f"{found[p]:.1f}" for p in ("p50", "p95", "p99"))


def compete(contestants: Iterable[Contestant], works: Sequence[str], rounds: int, seconds: float) -> Results:
    """Let contestants do works in turns."""
    everyone = {one.name: one for one in contestants}

    def stint(one: Contestant) -> dict[str, Turn]:
        turns = {work: one.turn(work, seconds) for work in works}
        for work, turn in turns.items():
            print(f"{one.name}, {work}: {turn.milliseconds:.1f} ms an image", file=sys.stderr, flush=True)
        return turns

    found = in_turns({name: partial(stint, one) for name, one in everyone.items()}, rounds)
    turns = {
        (name, work): [stints[work] for stints in by_round]
        for name, by_round in found.items()
        for work in works
    }
    return Results(turns, {name: one.peak_bytes for name, one in everyone.items()})


def load_all(
    stack: ExitStack, commands: Iterable[tuple[str, Sequence[str]]], log: Path, threads: int
) -> list[Contestant]:
    """Start contestants one after the other, given by names and commands, until the stack ends."""
    found = []
    for name, command in commands:
        print(f"loading {name}", file=sys.stderr, flush=True)
        file = log / f"{name.replace(' ', '-').replace('/', '-')}.log"
        found.append(stack.enter_context(Contestant(name, command, file, threads)))
    return found
