"""Recalibration of a category with good images of the line, without training."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response

from app import calibration_pictures, uploads, verdict
from app.access import MaySeeModels, MayTune
from app.acts import audited
from app.calibration_pictures import MAX_PICTURES, Picture
from app.calibrations import InForce, Renewal, Slot, or_own
from app.database import clock
from app.dependencies import (
    AdmissionPart,
    AuditPart,
    Category,
    HistoryPart,
    InspectorPart,
    ResidencyPart,
    SettingsPart,
    StorePart,
)
from app.history.history import History
from app.openapi import documented
from app.openapi_bodies import CALIBRATION_EXTRA
from app.preconditions import CHANGING_PROBLEMS, ETAG, READING_PROBLEMS, IfMatch, etag, require_match
from app.problems import Problem
from app.recalibration import renewal, warnings_of
from app.routes.spans import Time
from app.routes.stations import StationOfCalibration
from app.scheduling.admission import CALIBRATIONS, Reservation
from app.scheduling.disconnect import cancel_on_disconnect
from app.schemas import calibrations as schemas
from app.schemas.predict import Threshold
from app.settings import Settings
from app.store import Store
from flows.fastflow import fit_pictures
from flows.fastflow.bundle import BundleError
from flows.fastflow.detector import Detector
from flows.fastflow.fit_pictures import FitPictures

router = APIRouter(prefix="/v1/models/{category}/calibrations", tags=["models"])

_NOTHING: Final = "0"  # the tag where there is no calibration of its own

_REVIEWED_WARNING: Final = (
    "Reviewed images were used. The rate is promised only if they are a fair draw of good parts, and "
    "not only those that scored high or low."
)
_CREATED: Final[dict[int | str, dict[str, Any]]] = {
    201: {"description": "It holds from now on.", **ETAG[200]}
}

_WHY = Query(
    min_length=1, max_length=500, description="Why, for the audit log.", examples=["New lamp on line 3"]
)
Reason = Annotated[str, _WHY]
Reviewed = Annotated[
    bool,
    Query(
        description="Take the images of the history whose latest review is good, too; with `station`, those "
        "inspected there, else those of stations without a calibration of their own. Only if parts were "
        "drawn at random to be reviewed: rejected ones are reviewed more often, and make the threshold too "
        "high."
    ),
]
Since = Annotated[
    Time | None,
    Query(
        alias="from",
        description="With `reviewed`: of inspections made then or later; UTC unless it says otherwise.",
        examples=["2026-11-25T06:00:00Z"],
    ),
]


@router.get("", responses={**ETAG, **documented(*READING_PROBLEMS)})
async def get_calibration(
    category: Category,
    response: Response,
    residency: ResidencyPart,
    store: StorePart,
    _: MaySeeModels,
    station: StationOfCalibration = None,
) -> schemas.CalibrationInForce:
    """Tell the calibration in force at a station, or at all that have none of their own.

    A station's own goes before that of the line, and that before the version's. The ETag is for changing
    exactly the station's own, or that of the line.
    """
    detector = await residency.get(category)
    # Before what it is told with: the tag of a calibration that came in between would match a change of it.
    own = await asyncio.to_thread(store.calibrations.read, Slot.of(detector, station))
    response.headers["ETag"] = etag(_tag(own))
    return await asyncio.to_thread(told, store, detector, station)


@router.post(
    "",
    status_code=201,
    openapi_extra=CALIBRATION_EXTRA,
    responses={
        **_CREATED,
        **documented(
            *CHANGING_PROBLEMS,
            "too-large",
            "unsupported-media-type",
            "undecodable-image",
            "queue-full",
            "draining",
        ),
    },
)
async def renew_calibration(
    category: Category,
    request: Request,
    response: Response,
    settings: SettingsPart,
    admission: AdmissionPart,
    residency: ResidencyPart,
    inspector: InspectorPart,
    history: HistoryPart,
    store: StorePart,
    audit: AuditPart,
    caller: MayTune,
    reason: Reason,
    station: StationOfCalibration = None,
    reviewed: Reviewed = False,
    since: Since = None,
    if_match: IfMatch = None,
) -> schemas.Renewed:
    """Recalibrate the active version, for all stations or for one, with images of good parts of the line.

    Nothing is trained. Thresholds, p-values and colours follow from the new images alone, at the rates that
    are set. The images must be of good parts as they come, none of them chosen, and none that the model was
    fitted to: such images, copies, and images that cannot be read are refused by name, and nothing changes.
    """
    known = {"station": station, "reason": reason, "reviewed": reviewed}
    async with audited(request, audit, caller, "model.calibrate", category, known) as detail:
        detector = await residency.get(category)
        slot = Slot.of(detector, station)
        # Before megabytes are sent in vain; the check that counts is in `edit`.
        require_match(if_match, _tag(await asyncio.to_thread(store.calibrations.read, slot)))
        fitted = await asyncio.to_thread(_fitted, store, detector)
        with admission.reserve(CALIBRATIONS) as room:
            pictures: list[Picture] = []
            if not reviewed or "content-type" in request.headers:
                pictures = await _uploaded(request, room, settings)
            found = []
            if reviewed:
                found = await asyncio.to_thread(_reviewed, store, history, slot, since)
            chosen = await asyncio.to_thread(calibration_pictures.choose, pictures, found, fitted)
            work = calibration_pictures.measure(chosen, detector, inspector, history)
            measured = await cancel_on_disconnect(request, work)

        def edit(there: InForce | None) -> Renewal:
            # Images may take minutes, and scores of a version that went say nothing of the one that serves.
            if residency.serving(category) != detector.manifest.version:
                raise Problem(
                    "conflict",
                    "Another version serves since the images were sent; nothing was changed. Send again.",
                )
            require_match(if_match, _tag(there))
            asked = detector.calibrator.target_fpr
            return renewal(slot, measured, target_fpr=asked, by=caller.actor, reason=reason)

        before, after, warnings = await asyncio.to_thread(_put_in_force, store, slot, detector, edit, fitted)
        if found:
            warnings.append(_REVIEWED_WARNING)
        in_force = await asyncio.to_thread(told, store, detector, station)
        detail |= {
            "version": in_force.version,
            "engine": in_force.engine,
            "calibration": after and after.calibrator.identifier,
            "pictures": len(measured),
            "fingerprint": after and after.renewal.pictures,
            "reject": {"from": before.reject, "to": in_force.threshold.reject},
            "warnings": warnings,
        }
    response.headers["ETag"] = etag(_tag(after))
    return schemas.Renewed(
        **dict(in_force),
        before=before,
        pictures=len(measured),
        left_out=len(pictures) + len(found) - len(measured),
        warnings=warnings,
    )


@router.delete("", status_code=204, responses=documented(*CHANGING_PROBLEMS, "not-found"))
async def delete_calibration(
    category: Category,
    request: Request,
    residency: ResidencyPart,
    store: StorePart,
    audit: AuditPart,
    caller: MayTune,
    station: StationOfCalibration = None,
    if_match: IfMatch = None,
    reason: Annotated[str | None, _WHY] = None,
) -> None:
    """Remove a calibration that was made after the version. The line's, or the version's, holds again."""
    known = {"station": station, "reason": reason, "removing": True}
    async with audited(request, audit, caller, "model.calibrate", category, known) as detail:
        detector = await residency.get(category)
        slot = Slot.of(detector, station)
        tuned = await asyncio.to_thread(store.settings, category)
        held: dict[str, Any] = {}

        def edit(there: InForce | None) -> None:
            if there is None:
                raise Problem("not-found", "No calibration was made for this after the version.")
            require_match(if_match, _tag(there))
            after = detector.calibrator
            if station is not None:  # a line's that cannot be read must refuse before the station's is gone
                after = or_own(detector, store.calibrations.read(replace(slot, station=None)))
            was, now = (verdict.thresholds(one, tuned).reject for one in (there.calibrator, after))
            held["removed"] = there.calibrator.identifier
            held["reject"] = {"from": was.reject, "to": now.reject}

        await asyncio.to_thread(store.calibrations.change, slot, edit)
        detail |= {"version": detector.manifest.version, "engine": detector.engine, **held}


def _tag(there: InForce | None) -> str:
    return _NOTHING if there is None else there.calibrator.identifier


def told(
    store: Store, detector: Detector, station: str | None, stations: list[str] | None = None
) -> schemas.CalibrationInForce:
    """Describe the calibration in force at a station; None for all that have none of their own."""
    found = store.calibrations.find(Slot.of(detector, station))
    settings = store.settings(detector.manifest.category)
    origin = None
    if found is not None:
        one = found.renewal
        origin = schemas.Origin(created=one.created, by=one.by, reason=one.reason, pictures=one.pictures)
    return schemas.CalibrationInForce(
        category=detector.manifest.category,
        version=detector.manifest.version,
        engine=detector.engine,
        station=station,
        threshold=verdict.shown(verdict.thresholds(or_own(detector, found), settings)),
        origin=origin,
        stations=store.calibrations.stations(Slot.of(detector)) if stations is None else stations,
    )


def all_told(store: Store, detector: Detector) -> list[schemas.CalibrationInForce]:
    """Describe the calibration of all stations without one of their own, and then those of the others."""
    stations = store.calibrations.stations(Slot.of(detector))
    return [told(store, detector, station, stations) for station in (None, *stations)]


async def _uploaded(request: Request, room: Reservation, settings: Settings) -> list[Picture]:
    upload = await uploads.read_many(
        request,
        room,
        settings.max_bytes,
        MAX_PICTURES,
        max(settings.max_bytes, settings.queue_bytes // 2),
        settings.upload_idle_seconds,
    )
    return await asyncio.to_thread(calibration_pictures.uploaded, upload)


def _put_in_force(
    store: Store,
    slot: Slot,
    detector: Detector,
    edit: Callable[[InForce | None], Renewal],
    fitted: FitPictures | None,
) -> tuple[Threshold, InForce | None, list[str]]:
    """Replace a calibration; returns the threshold before, the new calibration, and warnings."""
    before = store.calibrations.get(detector, slot.station)
    tuned = store.settings(detector.manifest.category)
    after = store.calibrations.change(slot, edit)
    warnings = [] if after is None else warnings_of(before, after.calibrator, tuned, fitted)
    return verdict.shown(verdict.thresholds(before, tuned)), after, warnings


def _reviewed(store: Store, history: History, slot: Slot, since: datetime | None) -> list[Picture]:
    """Read the reviewed images of a station; for the line those of all stations without a calibration."""
    since_ms = 0 if since is None else clock.from_datetime(since)
    others = store.calibrations.stations(slot) if slot.station is None else ()
    return calibration_pictures.reviewed(history, slot.manifest.category, slot.station, others, since_ms)


def _fitted(store: Store, detector: Detector) -> FitPictures | None:
    manifest = detector.manifest
    try:
        return fit_pictures.load(store.models / manifest.category / manifest.version, manifest)
    except BundleError as error:
        raise Problem("rejected-bundle", "Its list of fitted pictures was changed or is gone.") from error
