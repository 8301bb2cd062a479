"""Numbers for people and for files."""

import json
import os
import platform
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Figures = dict[str, Any]
_SHOWN = 20  # failures: the rest will be more of the same


def milliseconds(seconds: Collection[float]) -> Figures:
    """Quantiles of durations given in seconds, in milliseconds; empty where there is none."""
    if not seconds:
        return {}
    values = 1000 * np.asarray(list(seconds))
    p50, p95, p99 = (round(float(value), 2) for value in np.quantile(values, (0.50, 0.95, 0.99)))
    return {"p50": p50, "p95": p95, "p99": p99, "max": round(float(values.max()), 2)}


def slope_per_minute(times: Sequence[float], values: Sequence[float]) -> float:
    """Slope of the least-squares line through values at times in seconds, per minute; 0 for one value."""
    if len(times) < 2:
        return 0.0
    return 60 * float(np.polyfit(np.asarray(times) - times[0], np.asarray(values), 1)[0])


def machine() -> Figures:
    """On what the figures were made."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpus = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return {
        "cpu": cpus[0] if cpus else platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def report(name: str, figures: Figures, failures: Sequence[str], out: Path) -> int:
    """Print figures, write them to `out`/NAME.json, and return an exit code: 1 if anything was wrong.

    Args:
        name: of the scenario.
        figures: what was measured.
        failures: what was promised and not seen, a sentence each.
        out: a folder.
    """
    passed = {"scenario": name, "passed": not failures, "failures": list(failures[:_SHOWN])}
    text = json.dumps({**passed, **figures, "machine": machine()}, indent=2)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(text + "\n")
    print(text)
    if failures:
        print(f"NOT AS PROMISED: {len(failures)} failures, of which the first are above")
    return int(bool(failures))
