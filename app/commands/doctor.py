"""`flowgauge doctor`: check the installation, the models and a server."""

import importlib
import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.checks import Check, print_checks
from app.commands.options import MODELS_FOLDER, AsJson, Authority, Key, Models

if TYPE_CHECKING:
    from app.registry.loader import Loader

# Distribution and module of libraries that may lack a system library although they are installed.
LIBRARIES = {
    "torch": "torch",
    "numpy": "numpy",
    "scipy": "scipy",
    "scikit-learn": "sklearn",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
}
# Optional distributions: their purpose, and the packages to install.
OPTIONAL = {
    "openvino": ("up to four times the speed on a CPU", "openvino"),
    "onnx": ("flowgauge models export", "onnx onnxscript"),
    "aiomqtt": ("inspections to MQTT", "aiomqtt"),
    "tensorboard": ("logs of training", "tensorboard"),
    "matplotlib": ("flowgauge flows gallery", "matplotlib"),
    "elpv-dataset": ("the example data", "elpv-dataset"),
}


def doctor(
    models: Models = MODELS_FOLDER,
    url: Annotated[
        str | None,
        typer.Option(help="Check this server instead, e.g. https://inspection.plant.example:8000."),
    ] = None,
    key: Key = None,
    ca: Authority = None,
    as_json: AsJson = False,
) -> None:
    """Check what is installed, which device and engine are used, and what is missing.

    Every active model is loaded and scores its golden images, as at the start of a server. A PostgreSQL
    database and a store must answer.

    With --url, check a server as a line PC sees it: network, TLS, versions, readiness, the key's role, and an
    answer of each active model. The server stores nothing of it.
    """
    if url is not None:
        from app.commands.doctor_server import check_server

        print_checks(check_server(url, key, ca), as_json=as_json)
    else:
        print_checks(check_installation(models), as_json=as_json)


def check_installation(models: Path) -> Iterator[Check]:
    """Check this machine and a models folder, without changing anything."""
    python = f"Python {platform.python_version()}, {platform.platform()}, {os.cpu_count() or 1} cores"
    yield Check("flowgauge", "ok", f"{version('flowgauge')}, {python}")
    libraries = [_check_library(*names) for names in LIBRARIES.items()]
    yield from libraries
    for name, (purpose, packages) in OPTIONAL.items():
        found = _version(name)
        missing = f"not installed; for {purpose}: pip install {packages}"
        yield Check(name, "ok" if found else "note", found or missing)
    if all(check.state == "ok" for check in libraries):
        yield from _check_serving(models)
        yield _check_weights(models)


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _check_library(distribution: str, module: str) -> Check:
    try:
        importlib.import_module(module)
    # A broken installation (wrong binary, missing system library) can raise anything.
    except Exception as error:
        remedy = f"pip install --force-reinstall {distribution}"
        return Check(distribution, "problem", f"{module} cannot be imported ({error}): {remedy}")
    return Check(distribution, "ok", _version(distribution) or "installed")


# Modules that need those libraries are imported only after the libraries were checked.


def _check_serving(models: Path) -> Iterator[Check]:
    """Check the device, the models and the settings with which a server would start."""
    import torch

    from app.auth.exposure import require_certificate, require_keys_on_network
    from app.database.engine import parse_url
    from app.events.sinks.manager import describe_sinks
    from app.registry.loader import Loader
    from app.settings import load_settings
    from flows.fastflow.engines.engine import describe_slow_precision

    try:
        settings = load_settings(models=models)
        sinks = describe_sinks(settings)
        parse_url(settings.database_url)
        require_certificate(settings)
        require_keys_on_network(settings)
        loader = Loader.from_settings(settings, keep_converted=False)
        engine, device = loader.engine.name, loader.device
        next(models.iterdir(), None)
    except FileNotFoundError:  # before the first training
        missing = f"would not start yet: there is no folder {models}; flowgauge train makes it"
        yield Check("serve", "note", missing)
        return
    except OSError as error:
        yield Check("serve", "problem", f"would not start: {models} cannot be read: {error.strerror}")
        return
    except ValueError as error:  # of the settings, the database, the sinks, the device, ...
        yield Check("serve", "problem", f"would not start: {' '.join(str(error).split())}")
        return
    name = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    threads = settings.threads or torch.get_num_threads()
    yield Check("device", "ok", f"{device.type}{name}, engine {engine}, {threads} threads")
    if slower := describe_slow_precision(settings.precision, device):
        yield Check("precision", "note", slower)
    yield Check("sinks", "ok", "; ".join(sinks) or "no MQTT broker and no webhook")
    if settings.store is not None:
        yield _check_store(settings.store)
    yield from _check_models(models, loader)


def _check_store(url: str) -> Check:
    from app.storage.store import StoreUnavailable
    from app.storage.urls import StoreError, open_store, require_conditional_put

    try:
        require_conditional_put(open_store(url))
    except (StoreError, StoreUnavailable) as error:
        return Check("store", "problem", str(error))
    return Check("store", "ok", f"{url} answers and has conditional puts")


def _check_models(models: Path, loader: "Loader") -> Iterator[Check]:
    from flows.fastflow.bundle import models_folder

    categories = models_folder.categories(models)
    if not categories:
        yield Check("models", "note", f"none yet in {models.resolve()}; flowgauge train makes one")
    for category in categories:
        name = f"model {category}"
        if not os.path.lexists(models / category / models_folder.ACTIVE):
            # Normal after an upload; other categories are served.
            yield Check(name, "note", "no version is active: flowgauge models activate")
            continue
        try:
            folder = models_folder.resolve(models, category)
            loader.read(folder)
        except models_folder.NotFetchedError as error:
            yield Check(name, "note", str(error))
        # A fault of one model must not end the report.
        except Exception as error:
            yield Check(name, "problem", f"would not be served: {error}")
        else:
            count = len(models_folder.versions(models, category))
            yield Check(name, "ok", f"{folder.name} of {count}, verified")


def _check_weights(models: Path) -> Check:
    from flows.fastflow.backbones.presets import DEFAULT_BACKBONE
    from flows.fastflow.backbones.sources import list_weight_sources
    from flows.fastflow.bundle.models_folder import BACKBONES

    name = f"weights {DEFAULT_BACKBONE}"
    sources = list_weight_sources(DEFAULT_BACKBONE, models / BACKBONES)
    found = ", ".join(source.description for source in sources if source.found)
    ways = " or ".join(source.how for source in reversed(sources))
    missing = f"not found here: {ways}; or let training fetch them, if this machine reaches the timm hub"
    return Check(name, "ok", found) if found else Check(name, "problem", missing)
