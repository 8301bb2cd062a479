"""The process of a contestant: it loads something and times calls of it on request.

Only the standard library, because anomalib's interpreter runs this too. A line of JSON comes in per turn,

    {"work": NAME, "seconds": S, "least": N}

and one goes out: the seconds of each call, and the CPU seconds of all of them over all threads. The first
line out says what was loaded.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

# A call by the name of its work, and how many images it inspects.
Works = Mapping[str, tuple[Callable[[], object], int]]


def answer(load: Callable[[], Works]) -> None:
    """Load, say so, and answer until standard input ends."""
    # Libraries print to standard output, which here is for answers alone.
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(2, 1)
        works = load()
        answers.write(json.dumps({name: images for name, (_, images) in works.items()}) + "\n")
        for line in sys.stdin:
            request = json.loads(line)
            call, _ = works[request["work"]]
            answers.write(json.dumps(timed(call, request["seconds"], request["least"])) + "\n")


def timed(call: Callable[[], object], seconds: float, least: int) -> dict[str, Any]:
    """Call once to warm up, then for some seconds and at least `least` times."""
    call()
    took: list[float] = []
    cpu, begun = time.process_time(), time.perf_counter()
    while len(took) < least or time.perf_counter() - begun < seconds:
        start = time.perf_counter()
        call()
        took.append(time.perf_counter() - start)
    return {"seconds": took, "cpu": time.process_time() - cpu}
