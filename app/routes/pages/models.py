"""Pages of the models: one category, one version."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter
from starlette.responses import Response

from app.auth.permissions import MaySeeModels
from app.database.engine import Database
from app.dependencies import (
    Category,
    DriftDep,
    HistoryDep,
    JobsDep,
    LoadedModelsDep,
    ProductsDep,
    SettingsDep,
    StoreDep,
    Version,
)
from app.errors.problems import Problem
from app.history import browsing
from app.history.drift import DriftState
from app.history.reviewed_images import find_images
from app.jobs.evaluations import find_evaluation
from app.registry import model_settings
from app.registry.model_store import ModelStore
from app.routes import calibrations, models
from app.routes.pages.typical_image import typical_address
from app.schemas.access import Permission
from app.schemas.tuning import CalibrationInForce
from app.web.page import PagePart, PageRoute
from app.web.templating import data
from app.web.training_report import TrainingReport, training_report
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
    products: ProductsDep,
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
    is_product = has_good_reviews = False
    stations = {calibration.station for calibration in serving.calibrations if calibration.station}
    if page.may(Permission.HISTORY):
        windows = await asyncio.to_thread(drift.windows, category)
        has_good_reviews = await asyncio.to_thread(_has_good_reviews, history.database, category)
        is_product = bool(await asyncio.to_thread(products.find, [category]))
        stations.update(await asyncio.to_thread(_list_stations, history.database, category))
    in_place = loaded_models.serving_version(category)
    shown = next((one for one in model.versions if one.version == in_place), None)
    return page.render(
        "model.html",
        model=model,
        is_product=is_product,
        has_good_reviews=has_good_reviews,
        active=next((one for one in model.versions if one.active), None),
        refusal=loaded_models.refusal(category, model.active),
        in_place=in_place,
        shown=shown,
        precision=settings.precision,
        serving=serving,
        drift=windows,
        stations=sorted(stations),
        bands=REVIEW_RATES,
        audit_shares=_audit_shares(serving.audit_share),
        server_audit_share=settings.audit_share,
        passed=data(
            {
                "category": category,
                "maxBytes": settings.max_bytes,
                "minDefects": MIN_DEFECTS,
                "isProduct": is_product,
                "goodImage": in_place and typical_address(settings.models, category, in_place),
            }
        ),
    )


@router.get("/models/{category}/versions/{version}", response_class=Response)
async def show_version(
    category: Category,
    version: Version,
    _: MaySeeModels,
    page: PagePart,
    settings: SettingsDep,
    store: StoreDep,
    loaded_models: LoadedModelsDep,
    jobs: JobsDep,
) -> Response:
    """Show how a version was trained."""
    loaded = models.loaded_versions(loaded_models, category)
    described = await asyncio.to_thread(models.describe_version, settings.models, category, version, loaded)
    report = await asyncio.to_thread(_read_report, store, category, version)
    refusal = loaded_models.refusal(category, version) if described.active else None
    return page.render(
        "version.html",
        category=category,
        version=described,
        report=report,
        evaluation=await asyncio.to_thread(find_evaluation, jobs.store, jobs.folders, category, version)
        if page.may(Permission.HISTORY)
        else None,
        refusal=refusal,
        in_place=loaded_models.serving_version(category),
    )


def _read_report(store: ModelStore, category: str, version: str) -> TrainingReport:
    folder = store.models / category / version
    with suppress(Problem):  # the other facts are shown without it
        store.fetch(folder)
    return training_report(folder)


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


def _has_good_reviews(database: Database, category: str) -> bool:
    return next(find_images(database, category), None) is not None


def _list_stations(database: Database, category: str) -> list[str]:
    with database.read() as connection:
        return browsing.list_stations(connection, [category])
