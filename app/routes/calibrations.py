"""Recalibration of a category with good images of the line, without training."""

import asyncio
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response

from app.auth.audit import audited
from app.auth.permissions import MaySeeModels, MayTune
from app.database import clock
from app.dependencies import AdmissionDep, Category, HistoryDep, PipelineDep, SettingsDep, StoreDep
from app.errors.problems import Problem
from app.history.history import History
from app.http import uploads
from app.http.preconditions import CHANGING_PROBLEMS, ETAG, READING_PROBLEMS, IfMatch, etag, require_match
from app.inspection.decision import to_schema
from app.recalibration import request_images
from app.recalibration.recalibrate import RecalibrationResult, recalibrate
from app.recalibration.request_images import AuditedImages
from app.registry import model_settings
from app.registry.calibrations import ActiveCalibration, CalibrationTarget, choose_calibrator
from app.registry.model_store import ModelStore
from app.routes.openapi import documented
from app.routes.openapi_bodies import CALIBRATION_EXTRA
from app.routes.parameters import From, OptionalReason, Reason, StationOfCalibration
from app.scheduling.admission import CALIBRATIONS
from app.scheduling.disconnect import cancel_on_disconnect
from app.schemas import tuning as schemas
from flows.fastflow.bundle import image_digests
from flows.fastflow.bundle.bundle import BundleError
from flows.fastflow.bundle.image_digests import ImageDigests
from flows.fastflow.detector import Detector

router = APIRouter(prefix="/v1/models/{category}/calibrations", tags=["models"])

_NO_CALIBRATION: Final = "0"  # entity tag without a recalibration

TakeAudit = Annotated[
    bool,
    Query(
        description="Also use images of the audit sample whose latest review is good: of `station`, or of "
        "stations without a calibration of their own, since `from`. They are drawn at random, so the promise "
        "holds if all of the sample is reviewed; other reviewed images are a selection."
    ),
]


@router.get("", responses={**ETAG, **documented(*READING_PROBLEMS)})
async def get_calibration(
    category: Category,
    response: Response,
    store: StoreDep,
    _: MaySeeModels,
    station: StationOfCalibration = None,
) -> schemas.CalibrationInForce:
    """Return the calibration in force at a station, or the general one.

    A station's own calibration comes before that of the line, and that before the version's. The ETag belongs
    to the station's own calibration, or to that of the line.
    """
    detector = await store.loaded_models.get(category)
    # Read the tag before the description: a newer tag would allow a change of values that nobody has seen.
    own = await asyncio.to_thread(store.calibrations.read, CalibrationTarget.of(detector, station))
    response.headers["ETag"] = etag(_tag(own))
    return await asyncio.to_thread(describe_calibration, store, detector, station)


@router.post(
    "",
    status_code=201,
    openapi_extra=CALIBRATION_EXTRA,
    responses={
        201: {"description": "The calibration is in force.", **ETAG[200]},
        **documented(
            *CHANGING_PROBLEMS,
            *("too-large", "unsupported-media-type", "undecodable-image", "queue-full", "draining"),
        ),
    },
)
async def renew_calibration(
    category: Category,
    request: Request,
    response: Response,
    settings: SettingsDep,
    admission: AdmissionDep,
    pipeline: PipelineDep,
    history: HistoryDep,
    store: StoreDep,
    caller: MayTune,
    reason: Reason,
    station: StationOfCalibration = None,
    audit: TakeAudit = False,
    made_from: From = None,
    if_match: IfMatch = None,
) -> schemas.NewCalibration:
    """Recalibrate the active version with good images of the line, for all stations or for one.

    Nothing is trained. Thresholds, p-values and colours follow from the new images alone, at the set rates.
    The images must show good parts and must not be selected. If one is a copy, is unreadable or was used to
    fit the model, the request is refused with its name and nothing changes.
    """
    known = {"station": station, "reason": reason, "audit": audit}
    async with audited(request, "model.calibrate", category, known) as detail:
        detector = await store.loaded_models.get(category)
        slot = CalibrationTarget.of(detector, station)
        # Checked early to spare a useless upload; `_require_unchanged` is authoritative.
        require_match(if_match, _tag(await asyncio.to_thread(store.calibrations.read, slot)))
        fitted = await asyncio.to_thread(_read_fitted, store, detector)
        with admission.reserve(CALIBRATIONS) as room:
            uploaded, found = [], AuditedImages()
            if not audit or "content-type" in request.headers:
                upload = await uploads.read_upload(request, room, settings, request_images.MAX_IMAGES)
                uploaded = await asyncio.to_thread(request_images.uploaded_images, upload)
            if audit:
                found = await asyncio.to_thread(_find_audited, store, history, slot, made_from)
            chosen = await asyncio.to_thread(request_images.choose_images, uploaded, found, fitted)
            work = request_images.measure_images(chosen, detector, pipeline, history.files)
            measured = await cancel_on_disconnect(request, work)
        tuned = await asyncio.to_thread(store.settings, category)
        changed = await asyncio.to_thread(
            recalibrate,
            *(store.calibrations, tuned, detector, station, measured),
            fitted=fitted,
            by=caller.actor,
            reason=reason,
            check=partial(_require_unchanged, store, detector, if_match),
        )
        renewed = schemas.NewCalibration(
            **dict(await asyncio.to_thread(describe_calibration, store, detector, station)),
            before=changed.before,
            pictures=len(measured),
            left_out=len(uploaded) + len(found.images) - len(measured),
            warnings=[*changed.warnings, *found.warnings(fitted)],
        )
        detail |= _audit_detail(renewed, changed)
    response.headers["ETag"] = etag(_tag(changed.after))
    return renewed


@router.delete("", status_code=204, responses=documented(*CHANGING_PROBLEMS, "not-found"))
async def delete_calibration(
    category: Category,
    request: Request,
    store: StoreDep,
    _: MayTune,
    station: StationOfCalibration = None,
    if_match: IfMatch = None,
    reason: OptionalReason = None,
) -> None:
    """Remove a recalibration. The calibration of the line, or of the version, applies again."""
    known = {"station": station, "reason": reason, "removing": True}
    async with audited(request, "model.calibrate", category, known) as detail:
        detector = await store.loaded_models.get(category)
        slot = CalibrationTarget.of(detector, station)
        tuned = await asyncio.to_thread(store.settings, category)

        def edit(current: ActiveCalibration | None) -> None:
            if current is None:
                raise Problem("not-found", "There is no recalibration to remove.")
            require_match(if_match, _tag(current))
            after = detector.calibrator
            if station is not None:  # fails before anything is removed if the line's cannot be read
                after = choose_calibrator(detector, store.calibrations.read(replace(slot, station=None)))
            calibrators = (current.calibrator, after)
            was, now = (model_settings.apply_settings(one, tuned).reject for one in calibrators)
            detail["removed"] = current.calibrator.identifier
            detail["reject"] = {"from": was.reject, "to": now.reject}

        detail |= {"version": detector.manifest.version, "engine": detector.engine}
        await asyncio.to_thread(store.calibrations.change, slot, edit)


def _audit_detail(renewed: schemas.NewCalibration, changed: RecalibrationResult) -> dict[str, Any]:
    return {
        **renewed.model_dump(include={"version", "engine", "pictures", "warnings"}),
        "calibration": changed.after.calibrator.identifier,
        "fingerprint": changed.after.stored.pictures,
        "reject": {"from": changed.before and changed.before.reject, "to": changed.threshold.reject},
    }


def _find_audited(
    store: ModelStore, history: History, slot: CalibrationTarget, made_from: datetime | None
) -> AuditedImages:
    others = store.calibrations.stations(slot) if slot.station is None else []
    since_ms = 0 if made_from is None else clock.from_datetime(made_from)
    category = slot.manifest.category
    return request_images.find_audited_images(history.database, category, slot.station, others, since_ms)


def _require_unchanged(
    store: ModelStore, detector: Detector, if_match: str | None, current: ActiveCalibration | None
) -> None:
    store.require_serving(detector.manifest)
    require_match(if_match, _tag(current))


def _tag(current: ActiveCalibration | None) -> str:
    return _NO_CALIBRATION if current is None else current.calibrator.identifier


def describe_calibration(
    store: ModelStore, detector: Detector, station: str | None
) -> schemas.CalibrationInForce:
    """Describe the calibration in force at a station; None for stations without their own."""
    found = store.calibrations.find(CalibrationTarget.of(detector, station))
    settings = store.settings(detector.manifest.category)
    return schemas.CalibrationInForce(
        category=detector.manifest.category,
        version=detector.manifest.version,
        engine=detector.engine,
        station=station,
        threshold=to_schema(model_settings.apply_settings(choose_calibrator(detector, found), settings)),
        origin=found and schemas.CalibrationOrigin.model_validate(found.stored, from_attributes=True),
        stations=store.calibrations.stations(CalibrationTarget.of(detector)),
    )


def describe_calibrations(store: ModelStore, detector: Detector) -> list[schemas.CalibrationInForce]:
    """Describe the general calibration, then those of stations with their own."""
    stations = store.calibrations.stations(CalibrationTarget.of(detector))
    return [describe_calibration(store, detector, station) for station in (None, *stations)]


def _read_fitted(store: ModelStore, detector: Detector) -> ImageDigests | None:
    manifest = detector.manifest
    folder = store.models / manifest.category / manifest.version
    store.fetch(folder)
    try:
        return image_digests.read_digests(folder, manifest)
    except BundleError as error:
        raise Problem(
            "rejected-bundle", "The version's list of fitted images is missing or was changed."
        ) from error
