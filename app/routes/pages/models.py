"""Pages of the models: the list, one category, one version."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter
from starlette.responses import Response

from app.auth.permissions import MaySeeModels
from app.database.engine import Database
from app.dependencies import Category, DriftDep, HistoryDep, LoadedModelsDep, SettingsDep, StoreDep, Version
from app.errors.problems import Problem
from app.history import browsing
from app.history.drift import DriftMonitor, DriftState
from app.registry import model_settings
from app.registry.catalogue import require_readable
from app.registry.loaded_models import LoadedModels
from app.registry.model_store import ModelStore
from app.routes import calibrations, models
from app.routes.pages.filter import visible_categories
from app.schemas.access import Permission
from app.schemas.tuning import CalibrationInForce
from app.web.page import PagePart, PageRoute
from app.web.templating import data
from app.web.training_report import training_report
from flows.fastflow.bundle import models_folder
from flows.fastflow.detector import Detector
from flows.fastflow.learning.fit import MIN_DEFECTS

router = APIRouter(route_class=PageRoute)

# Choices of the review rate, besides none and the version's own rate.
REVIEW_RATES: Final = (0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3)
AUDIT_SHARES: Final = (0.0, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 1.0)  # besides the server's


@dataclass(frozen=True)
class ServingModel:
    """Calibrations and settings of the serving version; `trouble` says why they are unknown."""

    calibrations: list[CalibrationInForce]
    review_fpr: float | None = None
    own_review_fpr: float | None = None
    regions: tuple[str | None, ...] = ()
    audit_share: float | None = None
    trouble: str | None = None


@router.get("/models", response_class=Response)
async def show_models(
    caller: MaySeeModels,
    page: PagePart,
    settings: SettingsDep,
    loaded_models: LoadedModelsDep,
    drift: DriftDep,
) -> Response:
    """List the categories."""
    shown_drift = drift if page.may(Permission.HISTORY) else None

    def read() -> list[dict[str, Any]]:
        require_readable(settings.models)
        names = visible_categories(settings.models, caller)
        return [_row(settings.models, name, loaded_models, shown_drift) for name in names]

    return page.render("models.html", rows=await asyncio.to_thread(read))


@router.get("/models/{category}", response_class=Response)
async def show_model(
    category: Category,
    _: MaySeeModels,
    page: PagePart,
    settings: SettingsDep,
    loaded_models: LoadedModelsDep,
    store: StoreDep,
    drift: DriftDep,
    history: HistoryDep,
) -> Response:
    """Show a category: the serving version, thresholds, regions of interest and all versions."""
    loaded = models.loaded_versions(loaded_models, category)
    model = await asyncio.to_thread(models.describe_category, settings.models, category, loaded)
    try:
        detector = await loaded_models.get(category)
        serving = await asyncio.to_thread(_describe_serving, store, detector)
    except Problem as problem:
        serving = ServingModel([], trouble=problem.detail)
    windows: list[DriftState] = []
    stations = {calibration.station for calibration in serving.calibrations if calibration.station}
    if page.may(Permission.HISTORY):
        windows = await asyncio.to_thread(drift.windows, category)
        stations.update(await asyncio.to_thread(_list_stations, history.database, category))
    in_place = loaded_models.serving_version(category)
    return page.render(
        "model.html",
        model=model,
        active=next((one for one in model.versions if one.active), None),
        refusal=loaded_models.refusal(category, model.active),
        in_place=in_place,
        shown=next((one for one in model.versions if one.version == in_place), None),
        precision=settings.precision,
        serving=serving,
        drift=windows,
        stations=sorted(stations),
        bands=REVIEW_RATES,
        audit_shares=_audit_shares(serving.audit_share),
        server_audit_share=settings.audit_share,
        passed=data({"category": category, "maxBytes": settings.max_bytes, "minDefects": MIN_DEFECTS}),
    )


@router.get("/models/{category}/versions/{version}", response_class=Response)
async def show_version(
    category: Category,
    version: Version,
    _: MaySeeModels,
    page: PagePart,
    settings: SettingsDep,
    loaded_models: LoadedModelsDep,
) -> Response:
    """Show how a version was trained."""
    loaded = models.loaded_versions(loaded_models, category)
    described = await asyncio.to_thread(models.describe_version, settings.models, category, version, loaded)
    report = await asyncio.to_thread(training_report, settings.models / category / version)
    refusal = loaded_models.refusal(category, version) if described.active else None
    return page.render(
        "version.html",
        category=category,
        version=described,
        report=report,
        refusal=refusal,
        in_place=loaded_models.serving_version(category),
    )


def _row(
    folder: Path, category: str, loaded_models: LoadedModels, drift: DriftMonitor | None
) -> dict[str, Any]:
    """Build a row of the list of categories.

    `named` is the version that is recorded as active. It may be missing, or refused for the reason in
    `refusal`; then the version `serving` may serve in its place.
    """
    named = models_folder.active_version(folder, category)
    active = None
    if named is not None:
        with suppress(Problem):  # the version's directory is missing
            active = models.describe_version(folder, category, named, ())
    return {
        "category": category,
        "versions": len(models_folder.versions(folder, category)),
        "active": active,
        "named": named,
        "refusal": loaded_models.refusal(category, named),
        "serving": loaded_models.serving_version(category),
        "drift": [] if drift is None else drift.windows(category),
    }


def _describe_serving(store: ModelStore, detector: Detector) -> ServingModel:
    category = detector.manifest.category
    settings = store.settings(category)
    regions = [None] if settings.region else []
    return ServingModel(
        calibrations.describe_calibrations(store, detector),
        model_settings.resolve_review_fpr(store.calibrations.get(detector), settings),
        detector.calibrator.review_fpr,
        (*regions, *settings.stations),
        settings.audit_share,
    )


def _audit_shares(chosen: float | None) -> list[float]:
    return sorted({*AUDIT_SHARES, *([] if chosen is None else [chosen])})


def _list_stations(database: Database, category: str) -> list[str]:
    with database.read() as connection:
        return browsing.list_stations(connection, [category])
