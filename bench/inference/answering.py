"""The contestant's end: a process that has loaded something, and times calls of it when it is asked to.

The standard library alone: anomalib's interpreter runs this too. A line of JSON comes in for every turn,

    {"work": NAME, "seconds": S, "least": N}

and one goes out: the seconds of each call, and the CPU seconds of all of them over all threads. The first
line out says what was loaded.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Loaded:
    """What a process can be asked for.

    Attributes:
        works: by name, a call and how many pictures it inspects.
        about: what it is, such as versions of libraries.
    """

    works: Mapping[str, tuple[Callable[[], object], int]]
    about: dict[str, Any] = field(default_factory=dict)


def answer(load: Callable[[], Loaded]) -> None:
    """Load, say so, and answer until the standard input ends."""
    # Libraries print where they like: the standard output is for answers alone.
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(2, 1)
        loaded = load()
        about = {"works": {name: images for name, (_, images) in loaded.works.items()}, **loaded.about}
        answers.write(json.dumps(about) + "\n")
        for line in sys.stdin:
            asked = json.loads(line)
            call, _ = loaded.works[asked["work"]]
            answers.write(json.dumps(timed(call, asked["seconds"], asked["least"])) + "\n")


def timed(call: Callable[[], object], seconds: float, least: int) -> dict[str, Any]:
    """Call once for warmth, which does not count, and then for some seconds, so often at least."""
    call()
    took: list[float] = []
    cpu, begun = time.process_time(), time.perf_counter()
    while len(took) < least or time.perf_counter() - begun < seconds:
        start = time.perf_counter()
        call()
        took.append(time.perf_counter() - start)
    return {"seconds": took, "cpu": time.process_time() - cpu}
