"""Categories and versions: their metrics, thresholds and training data."""

import asyncio
import logging
from collections.abc import Collection
from pathlib import Path

from fastapi import APIRouter

from app.access import MaySeeModels
from app.catalogue import require_readable, resolve, unknown_model
from app.dependencies import Category, ResidencyPart, SettingsPart, Version
from app.loader import reason
from app.openapi import documented
from app.residency import Residency
from app.routes import version_reports
from app.schemas import models as schemas
from app.schemas import predict as predict_schemas
from flows.fastflow import bundle, models_folder
from flows.fastflow.manifest import Manifest

logger = logging.getLogger("flowgauge.models")

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("", responses=documented("internal", "model-loading"))
def list_models(settings: SettingsPart, caller: MaySeeModels) -> schemas.ModelList:
    """List the categories with their versions; of a key that is for some categories alone, those."""
    require_readable(settings.models)
    allowed = caller.categories
    names = [n for n in models_folder.categories(settings.models) if allowed is None or n in allowed]
    return schemas.ModelList(
        models=[
            schemas.ModelSummary(
                category=name,
                active=models_folder.active_version(settings.models, name),
                versions=models_folder.versions(settings.models, name),
            )
            for name in names
        ]
    )


@router.get("/{category}", responses=documented("unknown-model", "internal", "model-loading"))
async def get_model(
    category: Category, settings: SettingsPart, residency: ResidencyPart, _: MaySeeModels
) -> schemas.Model:
    """Tell what is known of a category's versions: metrics, thresholds, training data and its licence."""
    return await asyncio.to_thread(told, settings.models, category, loaded_versions(residency, category))


@router.get(
    "/{category}/versions/{version}", responses=documented("unknown-model", "internal", "model-loading")
)
async def get_version(
    category: Category,
    version: Version,
    settings: SettingsPart,
    residency: ResidencyPart,
    _: MaySeeModels,
) -> schemas.Version:
    """Tell what is known of a version."""
    loaded = loaded_versions(residency, category)
    return await asyncio.to_thread(told_version, settings.models, category, version, loaded)


def told(models: Path, category: str, loaded: Collection[str]) -> schemas.Model:
    """Describe a category.

    Args:
        models: the models folder.
        category: the category.
        loaded: its versions that are in memory.

    Raises:
        Problem: unknown-model; model-loading, if the models folder cannot be read.
    """
    require_readable(models)
    active = models_folder.active_version(models, category)
    versions = [
        _version(models, category, version, version == active, loaded)
        for version in models_folder.versions(models, category)
    ]
    if not versions:
        raise unknown_model(models, category, None)
    previous = models_folder.previous_version(models, category)
    return schemas.Model(category=category, active=active, previous=previous, versions=versions)


def told_version(models: Path, category: str, version: str, loaded: Collection[str]) -> schemas.Version:
    """Describe a version; arguments and problems as of `told`."""
    resolve(models, category, version)
    return _version(
        models, category, version, version == models_folder.active_version(models, category), loaded
    )


def _version(
    models: Path, category: str, version: str, active: bool, loaded: Collection[str]
) -> schemas.Version:
    folder = models / category / version
    details, trouble = None, None
    try:
        manifest = bundle.read_manifest(folder)
        details = _told(manifest, bundle.manifest_sha256(folder, manifest))
    except bundle.BundleError as error:
        logger.warning("the manifest of %s cannot be read", folder, exc_info=True)
        trouble = reason(error, folder, models)
    return schemas.Version(
        version=version, active=active, loaded=version in loaded, details=details, trouble=trouble
    )


def loaded_versions(residency: Residency, category: str) -> set[str]:
    """Return the versions of a category that are in memory."""
    return {version for name, version in residency.loaded() if name == category}


def _told(manifest: Manifest, sha256: str) -> schemas.VersionDetails:
    height, width = manifest.input_size
    return schemas.VersionDetails(
        created=manifest.created,
        sha256=sha256,
        backbone=schemas.BackboneInfo(name=manifest.backbone.name, out_indices=manifest.backbone.out_indices),
        input_size=schemas.Size(width=width, height=height),
        fit=manifest.geometry.fit,
        thresholds={
            precision: predict_schemas.Threshold(
                pixel=calibration.map_threshold,
                calibration=predict_schemas.CalibrationUsed(id=sha256[:12], source="bundle"),
                **record.model_dump(),
            )
            for precision, record in manifest.thresholds.items()
            if (calibration := manifest.calibration_of(precision)) is not None
        },
        metrics=manifest.metrics,
        data=schemas.TrainingData.model_validate(manifest.data.model_dump()),
        golden=[schemas.GoldenResult(file=golden.file, score=golden.score) for golden in manifest.golden],
        report=version_reports.files(manifest),
    )
