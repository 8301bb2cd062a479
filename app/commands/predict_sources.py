"""Where `flowgauge predict` has its images inspected: in this process, or by a server."""

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import typer

# For how long a busy server is asked again.
_PATIENCE_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Finding:
    """The answer on one image."""

    score: float
    decision: str
    p_value: float
    version: str


class NotInspectedError(ValueError):
    """An image could not be inspected. The message is for people.

    Attributes:
        ends: whether no other image would be inspected, either.
    """

    def __init__(self, message: str, *, ends: bool = False) -> None:
        super().__init__(message)
        self.ends = ends


# Gives also the overlay, the bytes of a PNG, if one was asked for.
Inspect = Callable[[bytes], tuple[Finding, bytes | None]]


@contextmanager
def inspect_here(
    models: Path,
    category: str,
    version: str | None,
    station: str | None,
    threads: int | None,
    device: str,
    precision: str,
    drawn: bool,
) -> Iterator[Inspect]:
    """Load a model and score images with it in this process."""
    # Here and not above: torch takes seconds, which --help and --url should not.
    import torch

    from app.errors.problems import Problem
    from app.registry import model_settings
    from app.registry.calibrations import CalibrationFiles
    from app.registry.category_settings import SettingsFiles
    from flows.fastflow.bundle import models_folder
    from flows.fastflow.detector import Detector
    from flows.fastflow.imaging import decoder, heatmap, image_errors, image_limits
    from flows.fastflow.manifest import PRECISIONS

    try:
        folder = models_folder.resolve(models, category, version)
    except models_folder.UnknownModelError as error:
        raise typer.BadParameter(str(error), param_hint=_asked_for(version)) from error
    engine = next((known for known in PRECISIONS if known == precision), None)
    if engine is None:
        raise typer.BadParameter(f"{precision!r}: use {' or '.join(PRECISIONS)}", param_hint="--precision")
    if threads is not None:
        torch.set_num_threads(threads)
    calibrations = CalibrationFiles(models)
    fallback = calibrations.fallback(folder, engine)
    detector = Detector.load(folder, device=device, precision=engine, fallback=fallback)
    settings = SettingsFiles(models).get(category)
    thresholds = model_settings.apply_settings(calibrations.get(detector, station), settings)
    calibrator, used = thresholds.calibrator, detector.manifest.version

    def inspect(data: bytes) -> tuple[Finding, bytes | None]:
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
        finding = Finding(score, thresholds.decide(score), calibrator.p_value(score), used)
        if not drawn:
            return finding, None
        overlay = heatmap.render_overlay(image, scored.score_map, calibrator.colour_scale)
        return finding, heatmap.encode_png(overlay)

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
    """Have images inspected by the server at a URL."""
    from app import client as clients

    try:
        client = clients.Client(url, key, ca=ca, patience=_PATIENCE_SECONDS)
    except clients.AddressError as error:
        raise typer.BadParameter(str(error), param_hint=f"--{error.what}") from error
    with client:
        try:
            there = [known.version for known in client.model(category).versions]
        except (clients.NotFoundError, clients.AccessError) as error:
            option = "--category" if isinstance(error, clients.NotFoundError) else "--key"
            raise typer.BadParameter(str(error), param_hint=option) from error
        if version is not None and version not in there:
            raise typer.BadParameter(
                f"{category!r} has no version {version!r}; there are: {', '.join(there)}",
                param_hint=_asked_for(version),
            )
        inline: list[clients.Picture] = ["overlay"] if drawn else []

        def inspect(data: bytes) -> tuple[Finding, bytes | None]:
            try:
                found = client.inspect(
                    category, data, version=version, station=station, inline=inline, store=store
                )
            except clients.FlowGaugeError as error:
                raise NotInspectedError(str(error), ends=_is_away(error)) from error
            overlay = base64.b64decode(found.inline["overlay"]) if found.inline else None
            return Finding(found.score, found.decision, found.p_value, found.model.version), overlay

        yield inspect


def _is_away(error: Exception) -> bool:
    """Whether other images would fail, too. A server that is merely busy has more time for the next."""
    from app import client as clients

    match error:
        case clients.UnreachableError() | clients.AccessError():
            return True
        case clients.UnexpectedAnswerError():
            return error.server_is_away
        case clients.BusyError():
            return error.type in ("draining", "history-unavailable")
    return False


def _asked_for(version: str | None) -> str:
    return "--category" if version is None else "--version"
