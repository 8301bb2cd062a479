"""`flowgauge doctor`: what is installed, what will be used, what is missing and how to get it."""

import importlib
import json
import os
import platform
import shutil
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.commands import remote

# Distribution and module of what nothing works without.
LIBRARIES = {
    "torch": "torch",
    "timm": "timm",
    "safetensors": "safetensors",
    "numpy": "numpy",
    "scipy": "scipy",
    "scikit-learn": "sklearn",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "pydantic": "pydantic",
    "fastapi": "fastapi",
    "uvicorn": "uvicorn",
}
DEFAULT_BACKBONE = "tf_efficientnet_lite0"
LEAST_FREE_BYTES = 2**30


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
    device: str = ""
    engine: str = ""
    threads: int = 0
    weights: list[Weights] = field(default_factory=list)
    models_folder: str = ""
    models: list[Model] = field(default_factory=list)
    elpv: str | None = None
    free_bytes: dict[str, int] = field(default_factory=dict)  # by folder
    problems: list[str] = field(default_factory=list)


def doctor(
    models: Annotated[
        Path, typer.Option(envvar="FLOWGAUGE_MODELS", help="The models folder to look into.")
    ] = Path("models"),
    runs: Annotated[
        Path, typer.Option(envvar="FLOWGAUGE_RUNS", help="Where training keeps checkpoints and features.")
    ] = Path("runs"),
    url: Annotated[
        str | None,
        typer.Option(help="Look at the server there instead, e.g. https://inspection.plant.example:8000."),
    ] = None,
    key: remote.Key = None,
    ca: remote.Authority = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Say what is installed, which device and engine will be used, and what is missing.

    Every active model is loaded and its golden pictures are scored, as the server does at start.

    With --url it looks at a server instead, as a line PC sees it: network, TLS, versions, clocks, readiness,
    the key's role, and whether each active model answers. Nothing that is sent is kept there.

    Exit code 0: ready to train and to serve, or the server can be used. 1: something essential is missing.
    """
    if url is not None:
        _look_at_server(url, key, ca, as_json)
        return
    report = examine(models, runs)
    if as_json:
        typer.echo(json.dumps(asdict(report), indent=1))
    else:
        _print(report)
    if report.problems:
        raise typer.Exit(1)


def _look_at_server(url: str, key: str | None, ca: Path | None, as_json: bool) -> None:
    from app.commands.doctor_server import examine_server

    checks = []
    console = Console(highlight=False)
    styles = {"ok": "green", "note": "yellow", "problem": "red"}
    for check in examine_server(url, key, ca):
        checks.append(check)
        if not as_json:
            console.print(
                f"{check.state:8}{check.name}: {check.said}", style=styles[check.state], markup=False
            )
    if as_json:
        typer.echo(json.dumps([asdict(check) for check in checks], indent=1))
    if any(check.state == "problem" for check in checks):
        raise typer.Exit(1)


def examine(models: Path, runs: Path) -> Report:
    """Look at this machine, a models folder and a folder of runs; changes nothing."""
    report = Report(models_folder=str(models.resolve()), elpv=_version("elpv-dataset"))
    _libraries(report)
    if not report.problems:
        _device(report)
        _weights(report, models)
        _models(report, models)
    _disk(report, models, "models are published there")
    _disk(report, runs, "training keeps features there")
    return report


def _libraries(report: Report) -> None:
    for distribution, module in LIBRARIES.items():
        report.libraries[distribution] = _version(distribution) or "missing"
        try:
            importlib.import_module(module)
        # One that is there but broken (a wrong binary, no system library) raises anything.
        except Exception as error:
            report.problems.append(
                f"{module} cannot be imported ({error}): pip install --force-reinstall {distribution}"
            )


# What needs those libraries is imported only when they are known to be there.


def _device(report: Report) -> None:
    import torch

    from flows.fastflow.detector import pick_device

    device = pick_device()
    name = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    report.device = f"{device.type}{name}"
    report.engine = f"torch-{device.type}-float32"
    report.threads = torch.get_num_threads()


def _weights(report: Report, models: Path) -> None:
    from app.commands.backbones import SUGGESTED
    from flows.fastflow.backbones import weight_sources
    from flows.fastflow.bundle import BACKBONES

    for name in SUGGESTED:
        sources = weight_sources(name, models / BACKBONES)
        found = [source.description for source in sources if source.found]
        ways = [source.how for source in reversed(sources)]
        report.weights.append(Weights(name, found, [] if found else ways))
        if name == DEFAULT_BACKBONE and not found:
            report.problems.append(
                f"weights of the default backbone {name} not found locally: {ways[0]}; or let training fetch "
                "them, if this machine reaches the timm hub"
            )


def _models(report: Report, models: Path) -> None:
    from flows.fastflow import bundle
    from flows.fastflow.detector import Detector

    shared = None
    for category in bundle.categories(models):
        active, fault = bundle.active_version(models, category), None
        try:
            detector = Detector.load(bundle.resolve(models, category), backbone=shared)
            shared = detector.scorer.extractor
        # Whatever is wrong with one model, the report goes on with the next.
        except Exception as error:
            fault = str(error)
            report.problems.append(f"the model of {category} would not be served: {fault}")
        count = len(bundle.versions(models, category))
        report.models.append(Model(category, count, active, fault))


def _disk(report: Report, folder: Path, purpose: str) -> None:
    wanted = folder.resolve()
    there = next(p for p in (wanted, *wanted.parents) if p.exists())
    free = report.free_bytes[str(wanted)] = shutil.disk_usage(there).free
    if free < LEAST_FREE_BYTES:
        report.problems.append(
            f"{free / 2**30:.1f} GiB free for {wanted}: {purpose}; make room or use another folder"
        )


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _print(report: Report) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("FlowGauge", report.flowgauge)
    table.add_row("Python", f"{report.python}, {report.platform}")
    libraries = ", ".join(f"{name} {found}" for name, found in report.libraries.items())
    table.add_row("libraries", libraries)
    if report.engine:
        _add_what_works(table, report)
    elpv = f"elpv-dataset {report.elpv}" if report.elpv else "pip install elpv-dataset"
    table.add_row("example data", elpv)
    for folder, free in report.free_bytes.items():
        table.add_row("free disk", f"{free / 2**30:.1f} GiB for {folder}")
    console = Console(highlight=False)
    console.print(table)
    for problem in report.problems:
        console.print(f"problem: {problem}", style="red", markup=False)
    if not report.problems:
        console.print("ready to train and to serve", style="green")


def _add_what_works(table: Table, report: Report) -> None:
    """Rows that could be found out, which takes libraries that can be imported."""
    table.add_row("device", f"{report.device}, engine {report.engine}")
    table.add_row("threads", f"{report.threads} of {report.cores} cores")
    for weights in report.weights:
        found = ", ".join(weights.found) if weights.found else "\n  or ".join(weights.how)
        mark = "[green]found[/]" if weights.found else "[yellow]not found locally, get it by[/]"
        table.add_row(f"weights {weights.name}", f"{mark} {found}")
    none = f"none yet in {report.models_folder}; flowgauge train makes one"
    table.add_row("models", report.models_folder if report.models else none)
    for model in report.models:
        state = f"[red]{escape(model.fault)}[/]" if model.fault else "[green]verified[/]"
        what = f"{model.active or 'no active version'} of {model.versions}"
        table.add_row(f"  {model.category}", f"{what}, {state}")
