"""Reports of benchmarks: a page in Markdown, and a JSON file of everything measured."""

import json
import os
import platform
import statistics
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

Figures = dict[str, Any]
RESULTS = Path("bench-results")
_LIBRARIES = ("torch", "openvino", "timm", "numpy", "opencv-python-headless", "fastapi", "uvicorn")
_MAX_FAILURES_SHOWN = 20


@dataclass(frozen=True)
class Ratio:
    """One figure divided by another of the same round, for every round.

    Attributes:
        what: description, such as "anomalib over FlowGauge".
        values: one per round.
    """

    what: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median over the rounds."""
        return statistics.median(self.values)

    @property
    def row(self) -> list[str]:
        return [self.what, f"{self.median:.2f}", f"{min(self.values):.2f} to {max(self.values):.2f}"]


def ratio(what: str, over: Sequence[float], under: Sequence[float]) -> Ratio:
    """Divide two figures round by round.

    Raises:
        ValueError: the rounds differ in number, or a divisor is not positive.
    """
    if not over or len(over) != len(under):
        raise ValueError(f"a ratio needs both figures of every round; got {len(over)} and {len(under)}")
    if min(under) <= 0:
        raise ValueError(f"{what}: cannot divide by {min(under)}")
    return Ratio(what, tuple(a / b for a, b in zip(over, under, strict=True)))


@dataclass(frozen=True)
class Table:
    """Rows of text under a header."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def markdown(self) -> str:
        """Table in Markdown."""
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)


@dataclass
class Report:
    """Findings of a benchmark.

    Attributes:
        name: of the benchmark and of its files.
        settings: options that the figures depend on.
        tables: of the page.
        ratios: comparable between machines.
        notes: remarks, one sentence each.
        failures: broken promises, one sentence each.
        figures: everything measured, for the JSON file.
    """

    name: str
    settings: Figures = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    figures: Figures = field(default_factory=dict)

    def markdown(self) -> str:
        """Render the page, with a line about the machine."""
        host = machine()
        versions = ", ".join(f"{name} {number}" for name, number in host["versions"].items())
        lines = [
            f"## {self.name}",
            "",
            f"{host['cpu']}, {host['cores']} cores; Python {host['python']}, {versions}.",
            ", ".join(f"{name} {value}" for name, value in self.settings.items()) + ".",
        ]
        tables = list(self.tables)
        if self.ratios:
            header = ["ratio", "median", "over the rounds"]
            tables.append(Table("Ratios", header, [one.row for one in self.ratios]))
        for one in tables:
            lines += ["", f"### {one.title}", "", one.markdown]
        lines += ["", *(f"- {note}" for note in self.notes)] if self.notes else []
        if self.failures:
            lines += ["", f"{len(self.failures)} failures:", ""]
            lines += [f"- {failure}" for failure in self.failures[:_MAX_FAILURES_SHOWN]]
        return "\n".join(lines) + "\n"

    def write(self, out: Path) -> int:
        """Print the page and write it and its JSON file to `out`; return 1 if there are failures."""
        out.mkdir(parents=True, exist_ok=True)
        text = self.markdown()
        (out / f"{self.name}.md").write_text(text)
        record = {**asdict(self), "machine": machine()}
        record["ratios"] = [{**asdict(one), "median": one.median} for one in self.ratios]
        (out / f"{self.name}.json").write_text(json.dumps(record, indent=1) + "\n")
        print(text, flush=True)
        return int(bool(self.failures))


def figures_table(figures: Figures) -> Table:
    rows = [[name, json.dumps(value).strip("{}").replace('"', "")] for name, value in figures.items()]
    return Table("Figures", ["figure", "value"], rows)


def milliseconds(seconds: Collection[float]) -> Figures:
    """Return quantiles in milliseconds of durations in seconds; empty without any."""
    if not seconds:
        return {}
    values = 1000 * np.asarray(list(seconds))
    p50, p95, p99 = (round(float(value), 2) for value in np.quantile(values, (0.50, 0.95, 0.99)))
    return {"p50": p50, "p95": p95, "p99": p99, "max": round(float(values.max()), 2)}


def machine() -> Figures:
    """Describe the processor and the versions of the libraries that compute."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpus = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "cpu": cpus[0] if cpus else platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions,
    }
