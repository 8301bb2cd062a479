"""What models there are: categories, versions, what they were measured to do and trained on."""

import hashlib
import logging
from pathlib import Path

from fastapi import APIRouter

from app import schemas
from app.dependencies import Category, SettingsPart
from app.openapi import documented
from app.problems import Problem
from app.residency import expect_readable
from flows.fastflow import bundle

logger = logging.getLogger("flowgauge.models")

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("", responses=documented("internal", "model-loading"))
def list_models(settings: SettingsPart) -> schemas.ModelList:
    """List the categories with their versions."""
    expect_readable(settings.models)
    names = bundle.categories(settings.models)
    return schemas.ModelList(models=[_summary(settings.models, name) for name in names])


@router.get("/{category}", responses=documented("unknown-model", "internal", "model-loading"))
def get_model(category: Category, settings: SettingsPart) -> schemas.Model:
    """Tell what is known of a category's versions: metrics, thresholds, training data and its licence."""
    expect_readable(settings.models)
    summary = _summary(settings.models, category)
    versions = [
        schemas.Version(
            version=version,
            active=version == summary.active,
            details=_details(settings.models / category / version),
        )
        for version in summary.versions
    ]
    if not versions:
        there = "see /v1/models for those there are"
        raise Problem("unknown-model", f"There is no model of category {category[:64]!r}; {there}.")
    return schemas.Model(category=category, active=summary.active, versions=versions)


def _summary(models: Path, category: str) -> schemas.ModelSummary:
    try:
        active = bundle.active_version(models, category)
    except ValueError:  # the file is no text
        active = None
    return schemas.ModelSummary(category=category, active=active, versions=bundle.versions(models, category))


def _details(folder: Path) -> schemas.VersionDetails | None:
    try:
        manifest = bundle.read_manifest(folder)
        sha256 = hashlib.sha256((folder / bundle.MANIFEST).read_bytes()).hexdigest()
    except (bundle.BundleError, OSError):
        logger.warning("the manifest of %s cannot be read", folder, exc_info=True)
        return None
    height, width = manifest.input_size
    return schemas.VersionDetails(
        created=manifest.created,
        sha256=sha256,
        backbone=schemas.BackboneInfo(name=manifest.backbone.name, out_indices=manifest.backbone.out_indices),
        input_size=schemas.Size(width=width, height=height),
        thresholds={
            precision: schemas.Threshold(pixel=manifest.calibration.map_threshold, **record.model_dump())
            for precision, record in manifest.thresholds.items()
        },
        metrics=manifest.metrics,
        data=schemas.TrainingData.model_validate(manifest.data.model_dump()),
    )
