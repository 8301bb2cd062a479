"""The two ways in which `flowgauge predict` inspects images: in this process, or by a server."""

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import typer

from flows.fastflow.manifest import Precision

# Longest time in which a request to a busy server is repeated.
_PATIENCE_SECONDS: Final = 5.0


@dataclass(frozen=True)
class PredictResult:
    score: float
    decision: str
    p_value: float
    version: str


class NotInspectedError(ValueError):
    """An image could not be inspected; the message says why.

    Attributes:
        ends: True if no other image would be inspected, either.
    """

    def __init__(self, message: str, *, ends: bool = False) -> None:
        super().__init__(message)
        self.ends = ends


# Returns the result and, if requested, the overlay as a PNG.
Inspect = Callable[[bytes], tuple[PredictResult, bytes | None]]


@contextmanager
def inspect_here(
    models: Path,
    category: str,
    version: str | None,
    station: str | None,
    threads: int | None,
    device: str,
    precision: Precision,
    drawn: bool,
) -> Iterator[Inspect]:
    """Load a model and score images with it in this process."""
    # Imported here: --help and --url do not need it.
    from flows.fastflow.bundle import models_folder

    try:
        folder = models_folder.resolve(models, category, version)
    except models_folder.UnknownModelError as error:
        raise typer.BadParameter(str(error), param_hint=_option_at_fault(version)) from error
    models_folder.require_fetched(models, folder)
    # Imported last: torch takes seconds, and what is wrong with the arguments is said at once.
    import torch

    from app.errors.problems import Problem
    from app.registry import model_settings
    from app.registry.calibrations import CalibrationFiles
    from app.registry.category_settings import SettingsFiles
    from flows.fastflow.detector import Detector
    from flows.fastflow.imaging import decoder, heatmap, image_errors, image_limits

    if threads is not None:
        torch.set_num_threads(threads)
    calibrations = CalibrationFiles(models)
    fallback = calibrations.fallback(folder, precision)
    detector = Detector.load(folder, device=device, precision=precision, fallback=fallback)
    settings = SettingsFiles(models).get(category)
    thresholds = model_settings.apply_settings(calibrations.get(detector, station), settings)
    calibrator, used_version = thresholds.calibrator, detector.manifest.version

    def inspect(data: bytes) -> tuple[PredictResult, bytes | None]:
        try:
            image = decoder.decode_image(data, image_limits.FILE_LIMITS, detector.manifest.sample_bits)
            prepared = detector.prepare(image)
            region = settings.region_mask(station, prepared.layout.size)
            if region is not None:
                model_settings.require_detectable(detector, region)
        except (image_errors.ImageError, Problem) as error:
            raise NotInspectedError(str(error)) from error
        [scored] = detector.scorer.score_prepared([prepared], [region])
        score = calibrator.score(scored)
        result = PredictResult(score, thresholds.decide(score), calibrator.p_value(score), used_version)
        if not drawn:
            return result, None
        overlay = heatmap.render_overlay(image, scored.score_map, calibrator.colour_scale)
        return result, heatmap.encode_png(overlay)

    yield inspect


@contextmanager
def inspect_remotely(
    url: str,
    key: str | None,
    ca: Path | None,
    category: str,
    version: str | None,
    station: str | None,
    drawn: bool,
    store: bool,
) -> Iterator[Inspect]:
    """Inspect images on the server at a URL."""
    from app import client as clients

    try:
        client = clients.Client(url, key, ca=ca, patience=_PATIENCE_SECONDS)
    except clients.AddressError as error:
        raise typer.BadParameter(str(error), param_hint=f"--{error.what}") from error
    with client:
        try:
            versions = [known.version for known in client.model(category).versions]
        except (clients.NotFoundError, clients.AccessError) as error:
            option = "--category" if isinstance(error, clients.NotFoundError) else "--key"
            raise typer.BadParameter(str(error), param_hint=option) from error
        if version is not None and version not in versions:
            raise typer.BadParameter(
                f"{category!r} has no version {version!r}; its versions are: {', '.join(versions)}",
                param_hint=_option_at_fault(version),
            )
        inline: list[clients.Picture] = ["overlay"] if drawn else []

        def inspect(data: bytes) -> tuple[PredictResult, bytes | None]:
            try:
                found = client.inspect(
                    category, data, version=version, station=station, inline=inline, store=store
                )
            except clients.FlowGaugeError as error:
                raise NotInspectedError(str(error), ends=_is_away(error)) from error
            overlay = base64.b64decode(found.inline["overlay"]) if found.inline else None
            return PredictResult(found.score, found.decision, found.p_value, found.model.version), overlay

        yield inspect


def _is_away(error: Exception) -> bool:
    """Return True if other images would fail, too. A busy server may have time for the next one."""
    from app import client as clients

    match error:
        case clients.UnreachableError() | clients.AccessError():
            return True
        case clients.UnexpectedAnswerError():
            return error.server_is_away
        case clients.BusyError():
            return error.type in ("draining", "history-unavailable")
    return False


def _option_at_fault(version: str | None) -> str:
    return "--category" if version is None else "--version"
