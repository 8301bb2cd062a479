"""Ratios within a round, and tables of what was measured, for people and for files."""

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.flows.comparison import table
from bench.inference.contestant import Results, Turn
from bench.service.figures import Figures, machine, milliseconds

_MIB = 2**20
_LIBRARIES = ("torch", "openvino", "nncf", "timm", "numpy", "opencv-python-headless", "fastapi", "uvicorn")


@dataclass(frozen=True)
class Aim:
    """What a ratio is meant to be."""

    limit: float
    at_most: bool

    def is_met(self, value: float) -> bool:
        """Whether a ratio is so."""
        return value <= self.limit if self.at_most else value >= self.limit

    def __str__(self) -> str:
        return f"{'at most' if self.at_most else 'at least'} {self.limit:g}"


@dataclass(frozen=True)
class Ratio:
    """Two figures of the same round over each other, for every round.

    Attributes:
        what: was divided by what.
        values: one a round.
        aim: what their median is meant to be.
    """

    what: str
    values: tuple[float, ...]
    aim: Aim | None = None

    @property
    def median(self) -> float:
        """Over the rounds."""
        return statistics.median(self.values)

    @property
    def row(self) -> list[str]:
        """A line of a table."""
        spread = f"{min(self.values):.2f} to {max(self.values):.2f}"
        met = "" if self.aim is None else "yes" if self.aim.is_met(self.median) else "no"
        return [self.what, f"{self.median:.2f}", spread, str(self.aim or ""), met]

    @property
    def figures(self) -> Figures:
        """The same for files."""
        aim = None if self.aim is None else {**asdict(self.aim), "met": self.aim.is_met(self.median)}
        return {"what": self.what, "median": self.median, "values": list(self.values), "aim": aim}


def ratio(what: str, over: Sequence[float], under: Sequence[float], aim: Aim | None = None) -> Ratio:
    """The ratio of two figures that were taken in the same rounds.

    Raises:
        ValueError: there are none, not as many of each, or one to divide by is not positive.
    """
    if not over or len(over) != len(under):
        raise ValueError(f"a ratio needs both figures of every round; got {len(over)} and {len(under)}")
    if min(under) <= 0:
        raise ValueError(f"{what}: cannot divide by {min(under)}")
    return Ratio(what, tuple(a / b for a, b in zip(over, under, strict=True)), aim)


@dataclass(frozen=True)
class Table:
    """Rows under a header, all of them text."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass
class Part:
    """What a part of the bench has found.

    Attributes:
        name: of the part.
        settings: what it was run with.
        tables: for people.
        ratios: the figures that are worth comparing.
        notes: what was left out, and why.
        figures: all that was measured, for files.
    """

    name: str
    settings: Figures
    tables: list[Table] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    figures: Figures = field(default_factory=dict)


def contestants_table(title: str, results: Results, single: str) -> Table:
    """A line for each contestant: batches, single pictures or files, and memory.

    Args:
        title: of the table.
        results: with the work "batch" and the single one.
        single: "one" or "jpg", see `subject`.
    """
    header = ["", "batch of 8: ms an image", "images a second", "CPU ms an image"]
    header += [f"{_SINGLE[single]}: p50 / p95 / p99 ms", "peak MiB"]
    rows = []
    for name, peak in results.peaks.items():
        batch = results.turns[name, "batch"]
        each = statistics.median(turn.milliseconds for turn in batch)
        cpu = statistics.median(turn.cpu_milliseconds for turn in batch)
        row = [name, f"{each:.2f}", f"{1000 / each:.1f}", f"{cpu:.2f}"]
        row.append(quantiles(turn.seconds for turn in results.turns[name, single]))
        rows.append([*row, f"{peak / _MIB:.0f}"])
    return Table(title, header, rows)


_SINGLE = {"one": "one picture", "jpg": "a JPEG file"}


def quantiles(turns: Iterable[Sequence[float]]) -> str:
    """p50 / p95 / p99 in milliseconds, of all the seconds of some turns."""
    found = milliseconds([seconds for turn in turns for seconds in turn])
    return " / ".join(f"{found[p]:.1f}" for p in ("p50", "p95", "p99"))


def per_round(results: Results, name: str, work: str) -> list[float]:
    """Milliseconds an image of a contestant's turns, round by round."""
    return [turn.milliseconds for turn in results.turns[name, work]]


def cpu_per_round(results: Results, name: str, work: str) -> list[float]:
    """CPU milliseconds an image, round by round: what a busy machine disturbs less."""
    return [turn.cpu_milliseconds for turn in results.turns[name, work]]


def turns_for_files(results: Results) -> Figures:
    """All that was timed, by contestant and work."""
    found: Figures = {}
    for (name, work), turns in results.turns.items():
        found.setdefault(name, {"peak_bytes": results.peaks[name], "about": results.about[name]})
        found[name][work] = [_turn(turn) for turn in turns]
    return found


def _turn(turn: Turn) -> Figures:
    return {"images": turn.images, "cpu": turn.cpu, "seconds": list(turn.seconds)}


def where() -> Figures:
    """The machine, and the versions of what computes."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {**machine(), "versions": versions}


def markdown(part: Part, place: Figures) -> str:
    """A part as a page, with where it was run."""
    settings = ", ".join(f"{name} {value}" for name, value in part.settings.items())
    versions = ", ".join(f"{name} {number}" for name, number in place["versions"].items())
    lines = [
        f"## {part.name}",
        "",
        f"{place['cpu']}, {place['cores']} cores{_gpu(place)}; Python {place['python']}, {versions}.",
        f"{settings}.",
    ]
    for one in part.tables:
        lines += ["", f"### {one.title}", "", table(one.header, one.rows)]
    if part.ratios:
        header = ["ratio", "median", "over the rounds", "aim", "met"]
        lines += ["", "### Ratios", "", table(header, [one.row for one in part.ratios])]
    if part.notes:
        lines += ["", *(f"- {note}" for note in part.notes)]
    return "\n".join(lines) + "\n"


def _gpu(place: Figures) -> str:
    return f", {place['gpu']}" if "gpu" in place else ""


def write(part: Part, out: Path, place: Figures) -> str:
    """Print a part as Markdown, and write that and its JSON to `out`; returns the Markdown."""
    text = markdown(part, place)
    found: dict[str, Any] = {
        "part": part.name,
        "where": place,
        "settings": part.settings,
        "ratios": [one.figures for one in part.ratios],
        "notes": part.notes,
        "tables": [asdict(one) for one in part.tables],
        "figures": part.figures,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{part.name}.md").write_text(text)
    (out / f"{part.name}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(text, flush=True)
    return text
