"""False-reject rates of a category, and the thresholds that follow."""

import asyncio

from fastapi import APIRouter, Request, Response

from app.auth.audit import audited
from app.auth.permissions import MaySeeModels, MayTune
from app.dependencies import Category, StoreDep
from app.http.preconditions import CHANGING_PROBLEMS, ETAG, READING_PROBLEMS, IfMatch, etag, require_match
from app.inspection.decision import to_schema
from app.registry import model_settings
from app.registry.category_settings import CategorySettings
from app.routes.openapi import documented
from app.schemas import tuning as schemas
from flows.fastflow.calibration.calibrator import Calibrator
from flows.fastflow.detector import Detector

router = APIRouter(prefix="/v1/models/{category}", tags=["models"])


@router.get("/thresholds", responses={**ETAG, **documented(*READING_PROBLEMS)})
async def get_thresholds(
    category: Category, response: Response, store: StoreDep, _: MaySeeModels
) -> schemas.Rates:
    """Return the set false-reject rates and the thresholds that follow for the active version."""
    detector = await store.loaded_models.get(category)
    settings = await asyncio.to_thread(store.settings, category)
    calibrator = await asyncio.to_thread(store.calibrations.get, detector)
    return _rates_answer(response, detector, calibrator, settings)


@router.patch("/thresholds", responses={**ETAG, **documented(*CHANGING_PROBLEMS)})
async def change_thresholds(
    category: Category,
    change: schemas.RatesChange,
    request: Request,
    response: Response,
    store: StoreDep,
    _: MayTune,
    if_match: IfMatch = None,
) -> schemas.Rates:
    """Set the false-reject rate, the review rate and the audit share of a category.

    Rates are set, never scores. Thresholds follow from the calibration images of the active version or of the
    line, so they stay certified. They follow again when another version is activated.
    """
    rates = change.model_dump(include=change.model_fields_set - {"reason"})
    known = {"reason": change.reason, "to": rates}
    async with audited(request, "model.thresholds", category, known) as detail:
        detector = await store.loaded_models.get(category)
        calibrator = await asyncio.to_thread(store.calibrations.get, detector)

        def edit(settings: CategorySettings) -> CategorySettings:
            require_match(if_match, _tag(calibrator, settings))
            detail["from"] = settings.model_dump(include={"target_fpr", "review_fpr", *rates})
            detail["revision"] = settings.revision
            after = settings.model_copy(update=rates)
            if rates.keys() != {"audit_share"}:  # which no threshold follows from
                after = after.model_copy(update={"rates_revision": settings.revision})
            model_settings.require_review_band(calibrator, after)
            return after

        settings = await asyncio.to_thread(store.change_settings, category, edit)
    return _rates_answer(response, detector, calibrator, settings)


def _tag(calibrator: Calibrator, settings: CategorySettings) -> str:
    """Return the entity tag of the rates and the calibration that a change is based on."""
    return f"{settings.rates_revision}-{calibrator.identifier}"


def _rates_answer(
    response: Response, detector: Detector, calibrator: Calibrator, settings: CategorySettings
) -> schemas.Rates:
    response.headers["ETag"] = etag(_tag(calibrator, settings))
    return schemas.Rates(
        category=detector.manifest.category,
        version=detector.manifest.version,
        target_fpr=settings.target_fpr,
        review_fpr=settings.review_fpr,
        audit_share=settings.audit_share,
        threshold=to_schema(model_settings.apply_settings(calibrator, settings)),
    )
