"""Threads and priority of a job's process, and its end with the server.

As a program, `python -m app.jobs.resources PARENT COMMAND...` turns into a command of low priority that ends
with its parent process, and that leads a process group.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

_NICENESS: Final = 10  # inspections have priority
_OOM_SCORE: Final = "500"  # without memory, the kernel ends the job and not the server
_PR_SET_PDEATHSIG: Final = 1  # <sys/prctl.h>


def choose_threads(setting: int | None) -> int:
    """Choose the threads of a job: the setting, or else the cores that are free, but one.

    One core is left to inspections, because threads of a job wait for each other: if the server takes the
    core of one, all are slow. With two cores this is one thread.
    """
    if setting is not None:
        return setting
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    busy = round(os.getloadavg()[0])
    return max(1, cores - max(1, busy))


def as_child(command: Sequence[str]) -> list[str]:
    """Return a command that becomes another one, of low priority, and ends with this process.

    It leads a process group, because Ctrl-C in a terminal is for the server; but in the same session, because
    Linux compares priorities only within a session (autogroup, sched(7)). It makes the group itself, because
    asyncio cannot on uvloop, which Ray uses.
    """
    return [sys.executable, "-m", __name__, str(os.getpid()), *command]


def _give_way() -> None:
    """Lower this process's priority for processor, memory and disk."""
    os.nice(_NICENESS)
    with suppress(OSError, AttributeError):  # not Linux, or forbidden in a container
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)


def _end_with(parent: int) -> None:
    """Let the kernel kill this process when its parent ends, also by kill -9."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended before that
        sys.exit(1)


if __name__ == "__main__":
    os.setpgid(0, 0)
    _end_with(int(sys.argv[1]))
    _give_way()
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606  (no shell is wanted)
