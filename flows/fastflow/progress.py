"""Progress of a command as NDJSON on standard output, for programs: `--progress json`.

Each line is an object with the field "event": "line" (text), "progress" (stage, done, total, share,
seconds_left), and as the last one "result" or "error" (message).
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, TypeVar

_PAUSE_SECONDS: Final = 0.2  # between two events of a stage
_T = TypeVar("_T")


def write_event(event: str, **values: object) -> None:
    """Write an event to standard output."""
    sys.stdout.write(json.dumps({"event": event, **values}) + "\n")
    sys.stdout.flush()


class JsonProgress:
    """Progress of a command as events.

    Args:
        stages: usual time of each stage, in any unit; others count as nothing.
    """

    def __init__(self, stages: Mapping[str, float]) -> None:
        self._stages = stages
        self._share = 0.0

    def say(self, line: str) -> None:
        """Write a line for people."""
        write_event("line", text=line)

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Callable[[float], None]]:
        """Report a stage of `total` steps; yield a function that takes the number of steps done since."""
        before, weight = self._share, self._stages.get(title, 0) / sum(self._stages.values())
        done = first = start = told = 0.0

        def tell() -> None:
            self._share = min(before + weight * (done / total if total else 1), 1.0)
            # The first steps may come from an earlier run, or load what the others use.
            seconds, gained = time.monotonic() - start, weight * (done - first) / max(total, 1)
            left = round((1 - self._share) / gained * seconds, 1) if first and gained and seconds else None
            write_event(
                "progress",
                stage=title,
                done=int(done + 1e-6),
                total=total,
                share=round(self._share, 4),
                seconds_left=left,
            )

        def advance(steps: float) -> None:
            nonlocal done, first, start, told
            done, now = done + steps, time.monotonic()
            if not start:
                first, start = done, now
            elif now < told + _PAUSE_SECONDS:
                return
            told = now
            tell()

        tell()
        yield advance
        done = total
        tell()

    def track(self, items: Iterable[_T], title: str, total: int) -> Iterator[_T]:
        """Yield items, each a step of a stage."""
        with self.stage(title, total) as advance:
            for item in items:
                yield item
                advance(1)


def duration(seconds: float) -> str:
    """Format seconds as "12 s", "3 min 20 s" or "2 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def about(seconds: float) -> str:
    """Format an estimate of seconds as "12 s", "3 min" or "2 h 5 min"."""
    return duration(seconds if seconds < 60 else 60 * round(seconds / 60)).removesuffix(" 0 s")
