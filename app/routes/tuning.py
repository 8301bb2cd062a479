"""What an operator sets for a category: false-reject rates, and regions of interest by station."""

import asyncio

from fastapi import APIRouter, Request, Response

from app.auth.access import MaySeeModels, MayTune
from app.auth.audit import audited
from app.dependencies import Category, StoreDep
from app.errors.problems import Problem
from app.http.preconditions import CHANGING_PROBLEMS, ETAG, READING_PROBLEMS, IfMatch, etag, require_match
from app.inspection.decision import to_schema
from app.registry import model_settings
from app.registry.category_settings import CategorySettings, StoredRegion
from app.routes.openapi import documented
from app.routes.parameters import OptionalReason, StationOfRegion
from app.schemas import tuning as schemas
from app.schemas.tuning import Area
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
    return _rates(response, detector, calibrator, settings)


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
    """Set the false-reject rate and the review rate of a category.

    Rates are set, never scores. Thresholds follow from the calibration images of the active version or of the
    line, so they stay certified. They follow again when another version is activated.
    """
    wanted = change.model_dump(include={"target_fpr", "review_fpr"} & change.model_fields_set)
    known = {"reason": change.reason, "to": wanted}
    async with audited(request, "model.thresholds", category, known) as detail:
        detector = await store.loaded_models.get(category)
        calibrator = await asyncio.to_thread(store.calibrations.get, detector)

        def edit(settings: CategorySettings) -> CategorySettings:
            require_match(if_match, _tag(calibrator, settings))
            detail["from"] = settings.model_dump(include={"target_fpr", "review_fpr"})
            detail["revision"] = settings.revision
            after = settings.model_copy(update={**wanted, "rates_revision": settings.revision})
            model_settings.require_review_band(calibrator, after)
            return after

        settings = await asyncio.to_thread(store.change_settings, category, edit)
    return _rates(response, detector, calibrator, settings)


@router.get("/region", responses={**ETAG, **documented(*READING_PROBLEMS, "not-found")})
async def get_region(
    category: Category, response: Response, store: StoreDep, _: MaySeeModels, station: StationOfRegion = None
) -> schemas.RegionOfInterest:
    """Return the region of interest of a station, or the general one."""
    detector = await store.loaded_models.get(category)
    settings = await asyncio.to_thread(store.settings, category)
    return await asyncio.to_thread(_shown, response, station, detector, settings)


@router.put("/region", responses={**ETAG, **documented(*CHANGING_PROBLEMS)})
async def set_region(
    category: Category,
    area: Area,
    request: Request,
    response: Response,
    store: StoreDep,
    _: MayTune,
    station: StationOfRegion = None,
    reason: OptionalReason = None,
    if_match: IfMatch = None,
) -> schemas.RegionOfInterest:
    """Set the region of interest of a station, or the general one.

    Pixels outside do not count, and the false-reject rate stays as set. Changing an existing region needs If-
    Match.
    """
    # Thousands of corners are written down once, where they hold; a client that is refused repeats them.
    known = {"station": station, "reason": reason, "corners": sum(map(len, area.polygons))}
    async with audited(request, "model.region", category, known) as detail:
        detector = await store.loaded_models.get(category)

        def edit(settings: CategorySettings) -> CategorySettings:
            before = _region(settings, station)
            require_match(if_match, before.revision if before else None)
            region = StoredRegion(revision=settings.revision, **area.model_dump())
            model_settings.require_region(detector, region)
            detail.update(
                {"to": area.model_dump(), "from": before and before.model_dump()}, revision=settings.revision
            )
            return _with(settings, station, region)

        settings = await asyncio.to_thread(store.change_settings, category, edit)
    return await asyncio.to_thread(_shown, response, station, detector, settings)


@router.delete("/region", status_code=204, responses=documented(*CHANGING_PROBLEMS, "not-found"))
async def delete_region(
    category: Category,
    request: Request,
    store: StoreDep,
    _: MayTune,
    station: StationOfRegion = None,
    reason: OptionalReason = None,
    if_match: IfMatch = None,
) -> None:
    """Remove a region of interest. For a station, the general region then applies."""
    known = {"station": station, "reason": reason, "to": None}
    async with audited(request, "model.region", category, known) as detail:

        def edit(settings: CategorySettings) -> CategorySettings:
            before = _require_region(settings, station)
            require_match(if_match, before.revision)
            detail.update({"from": before.model_dump()}, revision=settings.revision)
            return _with(settings, station, None)

        await asyncio.to_thread(store.change_settings, category, edit)


def _region(settings: CategorySettings, station: str | None) -> StoredRegion | None:
    return settings.region if station is None else settings.stations.get(station)


def _require_region(settings: CategorySettings, station: str | None) -> StoredRegion:
    region = _region(settings, station)
    if region is None:
        whose = "for stations without one of their own" if station is None else f"for station {station!r}"
        raise Problem("not-found", f"No region of interest is set {whose}.")
    return region


def _with(settings: CategorySettings, station: str | None, region: StoredRegion | None) -> CategorySettings:
    if station is None:
        return settings.model_copy(update={"region": region})
    stations = {name: value for name, value in settings.stations.items() if name != station}
    if region is not None:
        stations[station] = region
    return settings.model_copy(update={"stations": stations})


def _shown(
    response: Response, station: str | None, detector: Detector, settings: CategorySettings
) -> schemas.RegionOfInterest:
    region = _require_region(settings, station)
    response.headers["ETag"] = etag(region.revision)
    share = float(model_settings.region_mask(detector, region).mean())
    return schemas.RegionOfInterest(
        image=region.image, polygons=region.polygons, station=station, share=share
    )


def _tag(calibrator: Calibrator, settings: CategorySettings) -> str:
    """Return the tag of what a change is based on: the rates, and the calibration of one version."""
    return f"{settings.rates_revision}-{calibrator.identifier}"


def _rates(
    response: Response, detector: Detector, calibrator: Calibrator, settings: CategorySettings
) -> schemas.Rates:
    response.headers["ETag"] = etag(_tag(calibrator, settings))
    return schemas.Rates(
        category=detector.manifest.category,
        version=detector.manifest.version,
        target_fpr=settings.target_fpr,
        review_fpr=settings.review_fpr,
        threshold=to_schema(model_settings.apply_settings(calibrator, settings)),
    )
