"""A category's false-reject rates, and the thresholds that follow from them."""

import asyncio

from fastapi import APIRouter, Request, Response

from app import verdict
from app.access import MaySeeModels, MayTune
from app.audit import audited
from app.category_settings import CategorySettings
from app.dependencies import Category, StorePart
from app.openapi import documented
from app.preconditions import CHANGING_PROBLEMS, ETAG, READING_PROBLEMS, IfMatch, etag, require_match
from app.schemas import tuning as schemas
from flows.fastflow.calibration import Calibrator
from flows.fastflow.detector import Detector

router = APIRouter(prefix="/v1/models/{category}/thresholds", tags=["models"])


@router.get("", responses={**ETAG, **documented(*READING_PROBLEMS)})
async def get_thresholds(
    category: Category, response: Response, store: StorePart, _: MaySeeModels
) -> schemas.Rates:
    """Tell the false-reject rates that are set, and the thresholds that they give with the active version."""
    detector = await store.residency.get(category)
    settings = await asyncio.to_thread(store.settings, category)
    calibrator = await asyncio.to_thread(store.calibrations.get, detector)
    response.headers["ETag"] = etag(_tag(calibrator, settings))
    return _rates(detector, calibrator, settings)


@router.patch("", responses={**ETAG, **documented(*CHANGING_PROBLEMS)})
async def change_thresholds(
    category: Category,
    change: schemas.RatesChange,
    request: Request,
    response: Response,
    store: StorePart,
    _: MayTune,
    if_match: IfMatch = None,
) -> schemas.Rates:
    """Set how many good parts may be rejected, and how many sent to a person besides.

    Thresholds follow from the calibration images of the active version, or of the line, so that what they
    certify is still true; they follow again when another version is activated. Whole rates are set, never
    scores.
    """
    wanted = change.model_dump(include={"target_fpr", "review_fpr"} & change.model_fields_set)
    known = {"reason": change.reason, "to": wanted}
    async with audited(request, "model.thresholds", category, known) as detail:
        detector = await store.residency.get(category)
        calibrator = await asyncio.to_thread(store.calibrations.get, detector)

        def edit(settings: CategorySettings) -> CategorySettings:
            require_match(if_match, _tag(calibrator, settings))
            detail["from"] = settings.model_dump(include={"target_fpr", "review_fpr"})
            detail["revision"] = settings.revision
            after = settings.model_copy(update={**wanted, "rates_revision": settings.revision})
            verdict.require_band(calibrator, after)
            return after

        settings = await store.change_settings(category, edit)
    response.headers["ETag"] = etag(_tag(calibrator, settings))
    return _rates(detector, calibrator, settings)


def _tag(calibrator: Calibrator, settings: CategorySettings) -> str:
    """Return the tag of what a change is based on: the rates, and the calibration of one version."""
    return f"{settings.rates_revision}-{calibrator.identifier}"


def _rates(detector: Detector, calibrator: Calibrator, settings: CategorySettings) -> schemas.Rates:
    return schemas.Rates(
        category=detector.manifest.category,
        version=detector.manifest.version,
        target_fpr=settings.target_fpr,
        review_fpr=settings.review_fpr,
        threshold=verdict.shown(verdict.thresholds(calibrator, settings)),
    )
