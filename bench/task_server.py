"""The side of a benchmark's child process: load something and time calls of it on request.

It uses only the standard library, because anomalib's interpreter runs it too. Each request is a line of JSON,

    {"task": NAME, "seconds": S, "min_calls": N}

and each answer is one: the seconds of every call, and the CPU seconds of all of them over all threads. The
first line of output names the tasks.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

# A call by the name of its task, and how many images it inspects.
Tasks = Mapping[str, tuple[Callable[[], object], int]]


def serve_tasks(load: Callable[[], Tasks]) -> None:
    """Load the tasks, announce them, and answer requests until standard input ends."""
    # Libraries print to standard output, which is for answers alone here.
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(2, 1)
        tasks = load()
        answers.write(json.dumps({name: images for name, (_, images) in tasks.items()}) + "\n")
        for line in sys.stdin:
            request = json.loads(line)
            call, _ = tasks[request["task"]]
            answers.write(json.dumps(time_calls(call, request["seconds"], request["min_calls"])) + "\n")


def time_calls(call: Callable[[], object], seconds: float, min_calls: int) -> dict[str, Any]:
    """Call once to warm up, then for some seconds and at least `min_calls` times."""
    call()
    took: list[float] = []
    cpu, begun = time.process_time(), time.perf_counter()
    while len(took) < min_calls or time.perf_counter() - begun < seconds:
        start = time.perf_counter()
        call()
        took.append(time.perf_counter() - start)
    return {"seconds": took, "cpu": time.process_time() - cpu}
