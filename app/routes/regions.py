"""Regions of interest of a category, by station."""

import asyncio

from fastapi import APIRouter, Request, Response

from app.auth.audit import audited
from app.auth.permissions import MaySeeModels, MayTune
from app.dependencies import Category, StoreDep
from app.errors.problems import Problem
from app.http.preconditions import CHANGING_PROBLEMS, ETAG, READING_PROBLEMS, IfMatch, etag, require_match
from app.registry import model_settings
from app.registry.category_settings import CategorySettings, StoredRegion
from app.routes.openapi import documented
from app.routes.parameters import OptionalReason, StationOfRegion
from app.schemas import tuning as schemas
from app.schemas.tuning import Area
from flows.fastflow.detector import Detector

router = APIRouter(prefix="/v1/models/{category}/region", tags=["models"])


@router.get("", responses={**ETAG, **documented(*READING_PROBLEMS, "not-found")})
async def get_region(
    category: Category, response: Response, store: StoreDep, _: MaySeeModels, station: StationOfRegion = None
) -> schemas.RegionOfInterest:
    """Return the region of interest of a station, or the general one."""
    detector = await store.loaded_models.get(category)
    settings = await asyncio.to_thread(store.settings, category)
    return await asyncio.to_thread(_region_answer, response, station, detector, settings)


@router.put("", responses={**ETAG, **documented(*CHANGING_PROBLEMS)})
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

    Pixels outside do not count, and the false-reject rate stays as set. Changing an existing
    region needs If-Match.
    """
    # A polygon may have thousands of corners. They are logged once it is set, not for each refused attempt.
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
            return _with_region(settings, station, region)

        settings = await asyncio.to_thread(store.change_settings, category, edit)
    return await asyncio.to_thread(_region_answer, response, station, detector, settings)


@router.delete("", status_code=204, responses=documented(*CHANGING_PROBLEMS, "not-found"))
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
            return _with_region(settings, station, None)

        await asyncio.to_thread(store.change_settings, category, edit)


def _region(settings: CategorySettings, station: str | None) -> StoredRegion | None:
    return settings.region if station is None else settings.stations.get(station)


def _require_region(settings: CategorySettings, station: str | None) -> StoredRegion:
    region = _region(settings, station)
    if region is None:
        scope = "for stations without their own region" if station is None else f"for station {station!r}"
        raise Problem("not-found", f"No region of interest is set {scope}.")
    return region


def _with_region(
    settings: CategorySettings, station: str | None, region: StoredRegion | None
) -> CategorySettings:
    if station is None:
        return settings.model_copy(update={"region": region})
    stations = {name: value for name, value in settings.stations.items() if name != station}
    if region is not None:
        stations[station] = region
    return settings.model_copy(update={"stations": stations})


def _region_answer(
    response: Response, station: str | None, detector: Detector, settings: CategorySettings
) -> schemas.RegionOfInterest:
    region = _require_region(settings, station)
    response.headers["ETag"] = etag(region.revision)
    share = float(model_settings.region_mask(detector, region).mean())
    return schemas.RegionOfInterest(
        image=region.image, polygons=region.polygons, station=station, share=share
    )
