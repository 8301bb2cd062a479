"""What `flowgauge doctor` found out about this machine, and how it is printed."""

import os
import platform
from dataclasses import dataclass, field
from importlib.metadata import version

from rich.console import Console
from rich.markup import escape
from rich.table import Table

# What more there may be: what it is for, and the packages that bring it.
OPTIONAL = {
    "openvino": ("up to four times the speed on a CPU", "openvino"),
    "onnx": ("flowgauge models export", "onnx onnxscript"),
    "aiomqtt": ("inspections to MQTT", "aiomqtt"),
    "tensorboard": ("logs of training", "tensorboard"),
    "matplotlib": ("flowgauge flows gallery", "matplotlib"),
}


@dataclass
class Weights:
    """A suggested backbone: where its weights are found on this machine, or how to get them."""

    name: str
    found: list[str]
    how: list[str]


@dataclass
class Model:
    """A category in the models folder; `fault` is why it would not be served, or None."""

    category: str
    versions: int
    active: str | None
    fault: str | None


@dataclass
class Report:
    """What was found; `problems` keep this machine from training or serving, each with a remedy."""

    flowgauge: str = field(default_factory=lambda: version("flowgauge"))
    python: str = field(default_factory=platform.python_version)
    platform: str = field(default_factory=platform.platform)
    cores: int = field(default_factory=lambda: os.cpu_count() or 1)
    libraries: dict[str, str] = field(default_factory=dict)
    optional: dict[str, str | None] = field(default_factory=dict)
    device: str = ""
    engine: str = ""
    threads: int = 0
    sinks: list[str] = field(default_factory=list)  # who is told of inspections
    weights: list[Weights] = field(default_factory=list)
    models_folder: str = ""
    models: list[Model] = field(default_factory=list)
    elpv: str | None = None
    free_bytes: dict[str, int] = field(default_factory=dict)  # by folder
    serves: bool = True  # False before the first training, which makes the models folder
    warnings: list[str] = field(default_factory=list)  # it works, but not as it might
    problems: list[str] = field(default_factory=list)


def show(report: Report) -> None:
    """Print it."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("FlowGauge", report.flowgauge)
    table.add_row("Python", f"{report.python}, {report.platform}")
    libraries = ", ".join(f"{name} {found}" for name, found in report.libraries.items())
    table.add_row("libraries", libraries)
    table.add_row("optional", escape("\n".join(_optional(*one) for one in report.optional.items())))
    if report.engine:
        table.add_row("device", f"{report.device}, engine {report.engine}")
        table.add_row("threads", f"{report.threads} of {report.cores} cores")
        table.add_row("tells", escape("\n".join(report.sinks) or "no MQTT broker and no webhook"))
    if report.weights:
        _add_models(table, report)
    elpv = f"elpv-dataset {report.elpv}" if report.elpv else "pip install elpv-dataset"
    table.add_row("example data", elpv)
    for folder, free in report.free_bytes.items():
        table.add_row("free disk", f"{free / 2**30:.1f} GiB for {folder}")
    console = Console(highlight=False)
    console.print(table)
    for warning in report.warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False)
    for problem in report.problems:
        console.print(f"problem: {problem}", style="red", markup=False)
    if not report.problems:
        console.print("ready to train and to serve" if report.serves else "ready to train", style="green")


def _optional(name: str, found: str | None) -> str:
    if found is not None:
        return f"{name} {found}"
    purpose, packages = OPTIONAL[name]
    return f"{name} is not installed; for {purpose}: pip install {packages}"


def _add_models(table: Table, report: Report) -> None:
    for weights in report.weights:
        found = ", ".join(weights.found) if weights.found else "\n  or ".join(weights.how)
        mark = "[green]found[/]" if weights.found else "[yellow]not found locally, get it by[/]"
        table.add_row(f"weights {weights.name}", f"{mark} {found}")
    none = f"none yet in {report.models_folder}; flowgauge train makes one"
    table.add_row("models", report.models_folder if report.models else none)
    for model in report.models:
        what = f"{model.active or 'no active version'} of {model.versions}"
        if model.fault:
            what += f", [red]{escape(model.fault)}[/]"
        elif model.active:
            what += ", [green]verified[/]"
        table.add_row(f"  {model.category}", what)
