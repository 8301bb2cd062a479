"""The bench's end: processes that take turns, and what each turn took."""

import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from bench.memory import peak_bytes

ROOT = Path(__file__).parents[2]
_STOP_SECONDS = 30.0


class ContestantError(ValueError):
    """A contestant could not be loaded, or ended before it was done; the end of its log says why."""


@dataclass(frozen=True)
class Turn:
    """What some calls took.

    Attributes:
        seconds: of each call.
        cpu: CPU seconds of all of them, over all threads.
        images: that each call inspects.
    """

    seconds: Sequence[float]
    cpu: float
    images: int = 1

    @property
    def milliseconds(self) -> float:
        """An image, of the median call."""
        return 1000 * statistics.median(self.seconds) / self.images

    @property
    def cpu_milliseconds(self) -> float:
        """CPU time of an image, the mean: calls of one turn cannot be told apart."""
        return 1000 * self.cpu / (self.images * len(self.seconds))


class Contestant:
    """A process with something loaded, see `answering`. Use it in a `with`.

    Args:
        name: for tables.
        command: that starts it.
        log: file of what it prints beside its answers.
        threads: of OpenMP.

    Attributes:
        about: what it said of itself.

    Raises:
        ContestantError: it ended before it was loaded.
    """

    def __init__(self, name: str, command: Sequence[str], log: Path, threads: int) -> None:
        self.name = name
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        # Nothing of the user's own settings: a figure must mean the same everywhere.
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
            self.about = self._read()
        except BaseException:
            self._end()
            raise

    @property
    def works(self) -> dict[str, int]:
        """What it can be asked for, and how many images each call inspects."""
        return dict(self.about["works"])

    @property
    def peak_bytes(self) -> int:
        """The largest resident set so far."""
        return peak_bytes(self._process.pid)

    def turn(self, work: str, seconds: float, least: int = 2) -> Turn:
        """Let it do a work for some seconds, so often at least.

        Raises:
            ContestantError: it ended.
        """
        if self._process.returncode is not None:
            raise ContestantError(self._why())
        try:
            self._pipe(self._process.stdin).write(
                json.dumps({"work": work, "seconds": seconds, "least": least}) + "\n"
            )
        except BrokenPipeError as error:
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
            with contextlib.suppress(BrokenPipeError):  # what was not sent to a process that has ended
                self._pipe(pipe).close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None  # noqa: S101
        return pipe


@dataclass
class Results:
    """All turns of some contestants.

    Attributes:
        turns: by contestant and work, one a round.
        peaks: the largest resident set of each contestant, in bytes.
        about: what each said of itself.
    """

    turns: dict[tuple[str, str], list[Turn]]
    peaks: dict[str, int]
    about: dict[str, dict[str, Any]]


def compete(contestants: Iterable[Contestant], works: Sequence[str], rounds: int, seconds: float) -> Results:
    """Let contestants do works in turns, so that all of them see the same machine.

    The one that begins is another one in each round: none always follows the same.
    """
    everyone = list(contestants)
    results = Results({}, {}, {one.name: one.about for one in everyone})
    for number in range(rounds):
        start = number % len(everyone)
        for one in (*everyone[start:], *everyone[:start]):
            for work in works:
                turn = one.turn(work, seconds)
                results.turns.setdefault((one.name, work), []).append(turn)
                print(
                    f"round {number + 1}/{rounds}: {one.name}, {work}: {turn.milliseconds:.1f} ms an image",
                    file=sys.stderr,
                    flush=True,
                )
    results.peaks = {one.name: one.peak_bytes for one in everyone}
    return results


def load_all(
    stack: ExitStack, asked: Iterable[tuple[str, Sequence[str]]], log: Path, threads: int
) -> list[Contestant]:
    """Start contestants one after the other, given by their names and commands, until the stack ends."""
    found = []
    for name, command in asked:
        print(f"loading {name}", file=sys.stderr, flush=True)
        file = log / f"{name.replace(' ', '-').replace('/', '-')}.log"
        found.append(stack.enter_context(Contestant(name, command, file, threads)))
    return found
