"""`flowgauge doctor`: what is installed, what will be used, what is missing and how to get it."""

import importlib
import json
import os
import shutil
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from app.commands import doctor_report, remote
from app.commands.doctor_report import Model, Report, Weights

if TYPE_CHECKING:
    from app.loader import Loader

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
LEAST_FREE_BYTES = 2**30
_NOT_SERVED = "flowgauge serve would not start"


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

    With --url it looks at a server instead, as a line PC sees it: network, TLS, versions, readiness, the
    key's role, and whether each active model answers. Nothing that is sent is kept there.

    Exit code 0: ready to train, and to serve once there is a models folder; or the server can be used. 1:
    something essential is missing; what is wrong for serving alone says so.
    """
    if url is not None:
        _look_at_server(url, key, ca, as_json)
        return
    report = examine(models, runs)
    if as_json:
        typer.echo(json.dumps(asdict(report), indent=1))
    else:
        doctor_report.show(report)
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
        loader = _service(report, models)
        _weights(report, models)
        if loader is not None:
            _models(report, models, loader)
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
    report.optional = {name: _version(name) for name in doctor_report.OPTIONAL}


# What needs those libraries is imported only when they are known to be there.


def _service(report: Report, models: Path) -> "Loader | None":
    """What a server would compute with; None where it would not start, as the report then says."""
    import torch

    from app.certificate import CertificateError, expect_certificate
    from app.database.engine import DatabaseError, DatabaseUnavailable, read_url
    from app.exposure import ExposureError, expect_keys_on_network
    from app.loader import Loader
    from app.settings import SettingsError, settings_from
    from app.sinks.errors import SinkError
    from app.sinks.sinks import describe
    from flows.fastflow.detector import DeviceError
    from flows.fastflow.engines import slower_here
    from flows.fastflow.engines.errors import EngineError

    try:
        settings = settings_from(models=models)
        report.sinks = describe(settings)
        read_url(settings.database_url)
        loader = Loader.of(settings)
        engine = loader.engine
    except (SettingsError, SinkError, DatabaseError, DeviceError, EngineError) as error:
        report.problems += [f"{_NOT_SERVED}: {line}" for line in str(error).splitlines()]
        return None
    for expect in (expect_certificate, expect_keys_on_network):
        try:
            expect(settings)
        except DatabaseUnavailable as error:
            report.problems.append(f"{_NOT_SERVED}: {error.at_start}")
        except (CertificateError, ExposureError, DatabaseError) as error:
            report.problems.append(f"{_NOT_SERVED}: {' '.join(str(error).split())}")
    try:
        next(models.iterdir(), None)
    except FileNotFoundError:  # as before the first training
        report.serves = False
        report.warnings.append(f"{_NOT_SERVED} yet: there is no folder {models}; flowgauge train makes it")
    except OSError as error:
        report.problems.append(f"{_NOT_SERVED}: the models folder cannot be read: {error.strerror}")
        return None
    device = loader.device
    name = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    report.device = f"{device.type}{name}"
    report.engine = engine.name
    report.threads = settings.threads or torch.get_num_threads()
    if slower := slower_here(settings.precision, device):
        report.warnings.append(slower)
    return loader


def _weights(report: Report, models: Path) -> None:
    from app.commands.backbones import SUGGESTED
    from flows.fastflow.backbones import weight_sources
    from flows.fastflow.models_folder import BACKBONES
    from flows.fastflow.presets import DEFAULT_BACKBONE

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


def _models(report: Report, models: Path, loader: "Loader") -> None:
    from flows.fastflow import models_folder

    for category in models_folder.categories(models):
        count = len(models_folder.versions(models, category))
        active, fault = models_folder.active_version(models, category), None
        if active is None and not os.path.lexists(models / category / models_folder.ACTIVE):
            # As after an upload: the others are served all the same.
            report.warnings.append(f"no version of {category} is active: flowgauge models activate")
            report.models.append(Model(category, count, None, None))
            continue
        try:
            loader.read(models_folder.resolve(models, category))
        # Whatever is wrong with one model, the report goes on with the next.
        except Exception as error:
            fault = str(error)
            report.problems.append(f"the model of {category} would not be served: {fault}")
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
