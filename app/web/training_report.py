"""The training report of a version, read from the files of its bundle."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Annotated, Final, NamedTuple

from pydantic import BaseModel, Field, FiniteFloat, TypeAdapter, ValidationError

from app.registry.report_files import MAX_REPORT_BYTES, REPORT, report_files
from app.web.chart import Axis
from flows.fastflow.bundle import bundle
from flows.fastflow.manifest import Manifest

WIDTH, HEIGHT = 600, 240
LEFT, RIGHT, TOP, BOTTOM = 54, 12, 12, 30
_MAX_FINDINGS: Final = 100
_MAX_SETTINGS: Final = 20_000  # characters


class CheckFinding(BaseModel):
    severity: str
    kind: str
    message: str


class _Check(BaseModel):
    findings: list[CheckFinding]


_Scales = Annotated[list[FiniteFloat], Field(min_length=1)]


_Names: Final = TypeAdapter(list[str])


class _Epoch(BaseModel):
    epoch: int
    fit_nll: _Scales
    held_out_nll: _Scales | None = None


class Loss(NamedTuple):
    """Loss curves of fitted and held-out images, as points of SVG polylines."""

    x: Axis
    y: Axis
    fitted: str
    held_out: str
    last_fitted: float
    last_held_out: float | None


class TrainingReport(NamedTuple):
    """Parts of a version's training report; None or empty for those that are absent or unreadable.

    Attributes:
        highest: names of the calibration images with the highest scores, and the file of each.
    """

    loss: Loss | None = None
    findings: list[CheckFinding] | None = None
    settings: str | None = None
    page: str | None = None
    highest: Sequence[tuple[str, str]] = ()


def training_report(folder: Path) -> TrainingReport:
    """Read the report of a version; it is empty if the version cannot be read."""
    try:
        manifest = bundle.read_manifest(folder)
    except bundle.BundleError:
        return TrainingReport()
    pages = [name for name in report_files(manifest) if name.endswith(".html")]
    return TrainingReport(
        _loss(_text(folder, manifest, "metrics.jsonl")),
        _findings(_text(folder, manifest, "data_check.json")),
        _text(folder, manifest, "config.yaml")[:_MAX_SETTINGS] or None,
        "report.html" if "report.html" in pages else next(iter(pages), None),
        _highest(_text(folder, manifest, "highest.json"), report_files(manifest)),
    )


def _highest(text: str, files: Sequence[str]) -> list[tuple[str, str]]:
    try:
        names = _Names.validate_json(text)
    except ValidationError:
        return []
    named = [(name, f"highest_{i}.webp") for i, name in enumerate(names)]
    return [(name, file) for name, file in named if file in files]


def _text(folder: Path, manifest: Manifest, name: str) -> str:
    """Read a file of the report; empty if it is missing or was changed."""
    if REPORT + name not in manifest.files:
        return ""
    try:
        return bundle.read_verified(folder, manifest, REPORT + name, MAX_REPORT_BYTES).decode(
            errors="replace"
        )
    except bundle.BundleError:
        return ""


def _findings(text: str) -> list[CheckFinding] | None:
    try:
        return _Check.model_validate_json(text).findings[:_MAX_FINDINGS]
    except ValidationError:
        return None


def _loss(text: str) -> Loss | None:
    try:
        epochs = [_Epoch.model_validate_json(line) for line in text.splitlines()]
    except ValidationError:
        return None
    fitted = {one.epoch: fmean(one.fit_nll) for one in epochs}
    held_out = {one.epoch: fmean(one.held_out_nll) for one in epochs if one.held_out_nll}
    if len(fitted) < 2:
        return None
    x = Axis(min(fitted), max(fitted), LEFT, WIDTH - RIGHT)
    y = Axis.around([*fitted.values(), *held_out.values()], HEIGHT - BOTTOM, TOP)
    line, other = (" ".join(f"{x.at(n)},{y.at(nll)}" for n, nll in of.items()) for of in (fitted, held_out))
    last = epochs[-1].epoch
    return Loss(x, y, line, other, fitted[last], held_out.get(last))
