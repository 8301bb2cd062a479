"""A command that runs as a child process and reports progress as NDJSON.

Each line of its standard output is a JSON object: `{"event": "line", "text": ...}`, `{"event": "progress",
"stage": ..., "done": ..., "total": ..., "share": ..., "seconds_left": ...}`, and as the last one
`{"event": "result", ...}` or `{"event": "error", "message": ...}`. Whatever else it prints is a line.
"""

import asyncio
import json
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from pydantic import BaseModel, Field, ValidationError

from app.jobs import resources

# The findings about ten thousand images are 3 MB.
_MAX_LINE_BYTES: Final = 16 * 1024 * 1024
_Text = Callable[[str], None]


class ChildProgress(BaseModel):
    """A child's progress; see `schemas.Job`."""

    stage: str = Field(max_length=16)
    done: int | None = None
    total: int | None = None
    share: float = Field(ge=0, le=1)
    seconds_left: float | None = Field(None, ge=0, allow_inf_nan=False)


class ChildFailed(Exception):  # noqa: N818  (the child's failure, not ours)
    """The command failed; the message says why."""


class ChildKilled(ChildFailed):
    """A signal ended the command, so that another attempt can succeed."""


class Child:
    """A command, run once.

    Args:
        command: with its arguments.
        environment: of the process.
        on_line: called with each line that a person would read.
        on_progress: called with each progress.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        on_line: _Text,
        on_progress: Callable[[ChildProgress], None],
    ) -> None:
        self._command = resources.as_child(command)
        self._environment = environment
        self._on_line = on_line
        self._on_progress = on_progress
        self._process: Process | None = None
        self._killed = False
        self._result: Mapping[str, Any] | None = None
        self._error: str | None = None
        self._last_line = ""

    async def run(self) -> Mapping[str, Any]:
        """Run the command to its end and return its result.

        Raises:
            ChildFailed, ChildKilled: it has none.
            OSError: it cannot be started.
        """
        self._process = process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            env=self._environment,
            limit=_MAX_LINE_BYTES,
        )
        if self._killed:
            self.kill()
        try:
            await asyncio.gather(
                self._read(process.stdout, self._take_event), self._read(process.stderr, self._take_line)
            )
        except BaseException:
            self.kill()
            raise
        code = await process.wait()
        if self._error is not None:
            raise ChildFailed(self._error)
        if self._result is not None:
            return self._result
        if code < 0:
            raise ChildKilled(_describe_signal(-code))
        detail = f": {self._last_line}" if self._last_line else ""
        raise ChildFailed(f"The command ended without a result, with code {code}{detail}")

    def kill(self) -> None:
        """Kill the process now, or as soon as it starts."""
        self._killed = True
        if self._process is not None and self._process.returncode is None:
            for kill in (os.killpg, os.kill):  # the second in case it has not made its group yet
                with suppress(ProcessLookupError):
                    kill(self._process.pid, signal.SIGKILL)

    async def _read(self, stream: asyncio.StreamReader | None, take: Callable[[bytes], None]) -> None:
        assert stream is not None  # noqa: S101  (it is a pipe)
        async for line in _lines(stream):
            take(line)

    def _take_line(self, line: bytes) -> None:
        if text := line.decode(errors="replace").strip():
            self._last_line = text[:500]
            self._on_line(text)

    def _take_event(self, line: bytes) -> None:
        try:
            event = json.loads(line)
            kind = event.pop("event")
            if kind == "progress":
                self._on_progress(ChildProgress.model_validate(event))
            elif kind == "line":
                self._on_line(str(event["text"]))
            elif kind == "result":
                self._result, self._error = event, None
            elif kind == "error":
                self._result, self._error = None, str(event["message"])[:2000]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, ValidationError):
            self._take_line(line)


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Yield lines; those beyond the limit are dropped."""
    while True:
        with suppress(ValueError):  # too long
            if not (line := await stream.readline()):
                return
            yield line
            await asyncio.sleep(0)  # a flood of lines leaves time for requests


def _describe_signal(number: int) -> str:
    if number == signal.SIGKILL:
        return (
            "The job's process was killed, most likely because the machine ran out of memory. Stop other "
            "programs, or train with a smaller preset."
        )
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return f"The job's process was ended by {name}."
