"""Categories and versions: their metrics, thresholds, training data and reports."""

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter
from fastapi import Path as PathParameter
from starlette.responses import Response

from app.auth.permissions import MaySeeModels
from app.dependencies import Category, LoadedModelsDep, SettingsDep, StoreDep, Version
from app.errors.problems import Problem
from app.inspection.decision import to_schema
from app.registry.catalogue import (
    find_version_folder,
    list_categories,
    require_readable,
    unknown_model_problem,
)
from app.registry.loaded_models import LoadedModels
from app.registry.loader import describe_error
from app.registry.report_files import MAX_REPORT_BYTES, REPORT, report_files
from app.routes.openapi import documented
from app.schemas import models as schemas
from flows.fastflow.bundle import bundle, models_folder
from flows.fastflow.detector import bundle_calibrator
from flows.fastflow.manifest import Manifest

logger = logging.getLogger("flowgauge.models")

router = APIRouter(prefix="/v1/models", tags=["models"])

# Reports come with uploaded bundles, so their pages are not trusted: no scripts, forms or requests, and an
# opaque origin without access to this service.
REPORT_POLICY: Final = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'; sandbox"
)
_FILE: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The file. A page is isolated (Content-Security-Policy: sandbox).",
        "content": {kind: {"schema": {"type": "string"}} for kind in ("text/html", "text/plain")},
    }
}


@router.get("", responses=documented("internal", "model-loading"))
def list_models(settings: SettingsDep, caller: MaySeeModels) -> schemas.ModelList:
    """List the categories and versions that the key may see."""
    return schemas.ModelList(
        models=[
            schemas.ModelSummary(
                category=name,
                active=models_folder.active_version(settings.models, name),
                versions=models_folder.versions(settings.models, name),
            )
            for name in list_categories(settings.models)
            if caller.categories is None or name in caller.categories
        ]
    )


@router.get("/{category}", responses=documented("unknown-model", "internal", "model-loading"))
def get_model(
    category: Category, settings: SettingsDep, loaded_models: LoadedModelsDep, _: MaySeeModels
) -> schemas.Model:
    """Return the versions of a category: metrics, thresholds, training data and its licence."""
    return describe_category(settings.models, category, loaded_versions(loaded_models, category))


@router.get(
    "/{category}/versions/{version}", responses=documented("unknown-model", "internal", "model-loading")
)
def get_version(
    category: Category,
    version: Version,
    settings: SettingsDep,
    loaded_models: LoadedModelsDep,
    _: MaySeeModels,
) -> schemas.Version:
    """Return metrics, thresholds and training data of a version."""
    return describe_version(settings.models, category, version, loaded_versions(loaded_models, category))


@router.get(
    "/{category}/versions/{version}/report/{name}",
    response_class=Response,
    responses={
        **_FILE,
        **documented("unknown-model", "not-found", "rejected-bundle", "internal", "model-loading"),
    },
)
def get_report_file(
    category: Category,
    version: Version,
    settings: SettingsDep,
    store: StoreDep,
    _: MaySeeModels,
    name: str = PathParameter(
        description="A file of the version's `report`.", max_length=255, examples=["config.yaml"]
    ),
) -> Response:
    """Return a file of a version's report: run settings, metrics, data check or images.

    The file is verified against the manifest. Browsers get it as text, as an image or as a page without
    scripts.
    """
    folder = find_version_folder(settings.models, category, version)
    store.fetch(folder)
    try:
        manifest = bundle.read_manifest(folder)
        if name not in report_files(manifest):
            raise Problem("not-found", f"The report of {version!r} has no file {name[:64]!r}.")
        data = bundle.read_verified(folder, manifest, REPORT + name, MAX_REPORT_BYTES)
    except bundle.BundleError as error:
        raise Problem(
            "rejected-bundle",
            f"{name[:64]!r} of version {version!r} was changed, or is larger than {MAX_REPORT_BYTES} bytes.",
        ) from error
    kind = {".html": "text/html", ".webp": "image/webp"}.get(Path(name).suffix, "text/plain")
    headers = {"Content-Security-Policy": REPORT_POLICY}
    return Response(data, headers=headers, media_type=kind)


def describe_category(models: Path, category: str, loaded: Collection[str]) -> schemas.Model:
    """Describe a category of a models folder.

    Raises:
        Problem: unknown-model; model-loading, if the models folder cannot be read.
    """
    require_readable(models)
    versions = [
        describe_version(models, category, version, loaded)
        for version in models_folder.versions(models, category)
    ]
    if not versions:
        raise unknown_model_problem(models, category, None)
    return schemas.Model(
        category=category,
        active=models_folder.active_version(models, category),
        previous=models_folder.previous_version(models, category),
        versions=versions,
    )


def describe_version(models: Path, category: str, version: str, loaded: Collection[str]) -> schemas.Version:
    """Describe a version; problems are those of `describe_category`."""
    folder = find_version_folder(models, category, version)
    details, trouble = None, None
    try:
        manifest = bundle.read_manifest(folder)
        details = _details(manifest, bundle.manifest_sha256(folder, manifest))
    except bundle.BundleError as error:
        logger.warning("the manifest of %s cannot be read", folder, exc_info=True)
        trouble = describe_error(error, folder, models)
    return schemas.Version(
        version=version,
        active=version == models_folder.active_version(models, category),
        loaded=version in loaded,
        details=details,
        trouble=trouble,
    )


def loaded_versions(loaded_models: LoadedModels, category: str) -> set[str]:
    return {version for name, version in loaded_models.model_sizes() if name == category}


def _details(manifest: Manifest, sha256: str) -> schemas.VersionDetails:
    height, width = manifest.input_size
    return schemas.VersionDetails.model_validate(
        {
            **manifest.model_dump(include={"created", "backbone", "metrics", "data", "learned", "golden"}),
            "sha256": sha256,
            "starter": manifest.starter,
            "input_size": {"width": width, "height": height},
            "fit": manifest.geometry.fit,
            "thresholds": {
                precision: {**to_schema(calibrator.default_thresholds).model_dump(), **record.model_dump()}
                for precision, record in manifest.thresholds.items()
                if (calibrator := bundle_calibrator(manifest, sha256, precision)) is not None
            },
            "report": report_files(manifest),
        }
    )
