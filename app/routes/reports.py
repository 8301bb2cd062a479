"""Reports: error rates, drift, shifts, and the training set of reviewed images."""

from itertools import chain
from typing import Annotated, Final

from fastapi import APIRouter, Query
from sqlalchemy import Connection, select
from starlette.responses import Response

from app.auth.permissions import MayReview, MaySeeHistory
from app.database import clock
from app.database.tables import inspections
from app.dependencies import Category, DriftDep, HistoryDep, SettingsDep
from app.errors.problems import Problem
from app.history import decision_counts, export, reviewed_images, training_set
from app.history.shift_report import kinds_of_defect, shift_report
from app.http.responses import LimitedStreamingResponse
from app.registry import catalogue
from app.routes.openapi import documented
from app.routes.parameters import AnySpan, OfStation, ShiftSpan
from app.schemas.reports import DriftReport, DriftStatistic, ErrorRates, ShiftReport
from flows.fastflow.bundle import models_folder

router = APIRouter(tags=["reports"])

_ZIP: Final = "application/zip"
_CSV: Final = "text/csv"


@router.get(
    "/v1/models/{category}/rates",
    responses=documented("invalid-request", "unknown-model", "internal", "history-unavailable"),
)
def get_rates(
    category: Category, _: MaySeeHistory, settings: SettingsDep, history: HistoryDep, requested: AnySpan
) -> ErrorRates:
    """Estimate overkill and escape rates from reviews.

    Shares are estimated within each decision and weighted by its inspections, because rejected parts are
    reviewed more often than passed ones. Without reviews of a decision the rates are unknown: review random
    parts of every decision. `audit` has the rates of the audit sample alone: unbiased once all of it is
    reviewed. By default all stored inspections count.
    """
    with history.database.read() as connection:
        _require_known(connection, settings, category)
        span = decision_counts.skip_deleted(connection, requested)
        estimates = decision_counts.estimate_error_rates(connection, category, requested)
    return ErrorRates(
        category=category, from_=clock.iso(span.from_ms), to=clock.iso(span.to_ms), **dict(estimates)
    )


@router.get(
    "/v1/models/{category}/drift", responses=documented("unknown-model", "internal", "history-unavailable")
)
def get_drift(
    category: Category, _: MaySeeHistory, drift: DriftDep, station: OfStation = None
) -> DriftReport:
    """Compare the latest inspections with the calibration images in force.

    Scores and features are compared. The window starts again after a change of version, region or
    calibration. A station with its own calibration is compared with that: ask for it by `station`. The answer
    always names the stations with an alarm.
    """
    state = drift.state(category, station) if models_folder.is_category(category) else None
    if state is None:
        raise Problem("unknown-model", f"No version of {category[:64]!r} is active.")
    return DriftReport(
        category=category,
        version=state.version,
        alarm=state.alarm,
        alarm_since=state.alarm_since,
        window=drift.window,
        inspections=state.inspections,
        since=state.since,
        station=state.station,
        alarming_stations=[one.station for one in drift.windows(category) if one.station and one.alarm],
        statistics=[DriftStatistic.model_validate(one) for one in state.comparisons],
    )


@router.get("/v1/reports/shift", responses=documented("invalid-request", "internal", "history-unavailable"))
def get_shift(
    caller: MaySeeHistory,
    history: HistoryDep,
    drift: DriftDep,
    requested: ShiftSpan,
    station: OfStation = None,
) -> ShiftReport:
    """Summarise a shift by category: decisions, overkill, escape and the worst parts.

    Includes the present drift and the changes of models and thresholds. By default the last 8 hours.
    """
    return shift_report(history.database, drift, requested, caller.categories, station)


@router.get(
    "/v1/reports/shift/kinds.csv",
    response_class=Response,
    responses={
        200: {
            "description": "One line for each category and kind.",
            "content": {_CSV: {"schema": {"type": "string"}}},
        },
        **documented("invalid-request", "internal", "history-unavailable"),
    },
)
def export_kinds(
    caller: MaySeeHistory, history: HistoryDep, requested: ShiftSpan, station: OfStation = None
) -> Response:
    """Export the kinds of defect in a shift as CSV, the most frequent first (Pareto)."""
    kinds = kinds_of_defect(history.database, requested, caller.categories, station)
    headers = {"Content-Disposition": 'attachment; filename="kinds.csv"', "Cache-Control": "no-store"}
    return Response(export.export_kinds(kinds), headers=headers, media_type=_CSV)


@router.get(
    "/v1/models/{category}/training-set",
    response_class=Response,
    responses={
        200: {
            "description": "The archive; unpacked, it is a data folder for `flowgauge train`.",
            "content": {_ZIP: {"schema": {"type": "string", "format": "binary"}}},
        },
        **documented("unknown-model", "conflict", "internal", "history-unavailable", "queue-full"),
    },
)
def get_training_set(
    category: Category,
    caller: MayReview,
    settings: SettingsDep,
    history: HistoryDep,
    audit: Annotated[bool, Query(description="Only images of the audit sample, to calibrate with.")] = False,
) -> Response:
    """Return the images reviewed as good, as a ZIP in a layout that training reads.

    Each image is included once, unless another review calls it a defect. Reviewed images are a selection, so
    recalibrate a version that is trained with them with unselected good images of the line.
    """
    with history.database.read() as connection:
        _require_known(connection, settings, category)
    chosen = reviewed_images.find_images(history.database, category, audit=audit or None)
    first = next(chosen, None)
    if first is None:
        raise Problem("conflict", f"No stored image of {category!r} is reviewed as good yet.")
    return LimitedStreamingResponse(
        history.archives,
        caller.key_id,
        training_set.pack_archive(chain([first], chosen), history.files, category),
        headers={
            "Content-Disposition": f'attachment; filename="{category}-training-set.zip"',
            "Cache-Control": "no-store",
        },
        media_type=_ZIP,
    )


def _require_known(connection: Connection, settings: SettingsDep, category: str) -> None:
    """Raise the problem unknown-model unless the category has a model, or had inspections."""
    if models_folder.is_category(category):
        if models_folder.versions(settings.models, category):
            return
        inspected = select(inspections.c.id).where(inspections.c.category == category).limit(1)
        if connection.scalar(inspected) is not None:
            return
    raise catalogue.unknown_model_problem(settings.models, category, None)
