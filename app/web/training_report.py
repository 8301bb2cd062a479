"""The training report of a version, read from the files of its bundle."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, Field, ValidationError

from app.routes.version_reports import FOLDER, MOST_BYTES, files
from app.web.chart import Axis
from flows.fastflow import bundle
from flows.fastflow.manifest import Manifest

WIDTH, HEIGHT = 600, 240
LEFT, RIGHT, TOP, BOTTOM = 54, 12, 12, 30
_MOST_EPOCHS: Final = 2000
_MOST_FINDINGS: Final = 100  # that are shown
_MOST_CHECK_BYTES: Final = 12 * 2**20  # 10,000 images with three findings each have 10 MB
_MOST_SETTINGS: Final = 20_000  # characters that are shown

# Far beyond any training, and their sums are still numbers.
_Likelihood = Annotated[float, Field(ge=-1e30, le=1e30, allow_inf_nan=False)]
_Scales = Annotated[list[_Likelihood], Field(min_length=1, max_length=64)]


class Finding(BaseModel):
    """A finding of the check of training images."""

    severity: str = Field(max_length=100)
    kind: str = Field(max_length=100)
    message: str = Field(max_length=2000)


class _Check(BaseModel):
    findings: list[Finding] = Field(fail_fast=True)


class _Epoch(BaseModel):
    epoch: int = Field(ge=0, le=10**9)
    fit_nll: _Scales
    held_out_nll: _Scales | None = None


@dataclass(frozen=True)
class Loss:
    """A drawing of the loss: the lines of fitted and of held-out pictures, as points of an SVG polyline."""

    x: Axis
    y: Axis
    fitted: str
    held_out: str
    last_fitted: float
    last_held_out: float | None


@dataclass(frozen=True)
class TrainingReport:
    """Parts of a version's training report; None for those that are absent or unreadable."""

    loss: Loss | None
    findings: list[Finding] | None
    settings: str | None
    page: str | None


def training_report(folder: Path) -> TrainingReport:
    """Read the report of a version; nothing of it where the version cannot be read."""
    try:
        manifest = bundle.read_manifest(folder)
    except bundle.BundleError:
        return TrainingReport(None, None, None, None)
    names = files(manifest)
    pages = [name for name in names if name.endswith(".html")]
    return TrainingReport(
        _loss(_text(folder, manifest, "metrics.jsonl")),
        _findings(_text(folder, manifest, "data_check.json", _MOST_CHECK_BYTES)),
        (_text(folder, manifest, "config.yaml") or "")[:_MOST_SETTINGS] or None,
        "report.html" if "report.html" in pages else next(iter(pages), None),
    )


def _text(folder: Path, manifest: Manifest, name: str, max_bytes: int = MOST_BYTES) -> str | None:
    if FOLDER + name not in manifest.files:
        return None
    try:
        return bundle.read_verified(folder, manifest, FOLDER + name, max_bytes).decode("utf-8", "replace")
    except bundle.BundleError:
        return None


def _findings(text: str | None) -> list[Finding] | None:
    try:
        return None if text is None else _Check.model_validate_json(text).findings[:_MOST_FINDINGS]
    except ValidationError:
        return None


def _loss(text: str | None) -> Loss | None:
    try:
        lines = (text or "").splitlines()[:_MOST_EPOCHS]
        epochs = [_Epoch.model_validate_json(line) for line in lines]
    except ValidationError:
        return None
    if len(epochs) < 2:
        return None
    numbers = [float(one.epoch) for one in epochs]
    fitted = [_mean(one.fit_nll) for one in epochs]
    held_out = [None if one.held_out_nll is None else _mean(one.held_out_nll) for one in epochs]
    values = [*fitted, *(value for value in held_out if value is not None)]
    if min(numbers) == max(numbers):
        return None
    x = Axis(min(numbers), max(numbers), LEFT, WIDTH - RIGHT)
    air = 0.06 * (max(values) - min(values)) or 0.01 * max(1.0, abs(values[0]))
    y = Axis(min(values) - air, max(values) + air, HEIGHT - BOTTOM, TOP)
    return Loss(x, y, _line(x, y, numbers, fitted), _line(x, y, numbers, held_out), fitted[-1], held_out[-1])


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _line(x: Axis, y: Axis, numbers: list[float], values: list[float] | list[float | None]) -> str:
    pairs = zip(numbers, values, strict=True)
    return " ".join(f"{x.at(number)},{y.at(value)}" for number, value in pairs if value is not None)
