"""Reports: overkill and escape, drift, shifts, and the images to train the next version on."""

from itertools import chain
from typing import Final

from fastapi import APIRouter
from sqlalchemy import Connection, select
from starlette.responses import Response

from app.auth.access import MayReview, MaySeeHistory
from app.database import clock
from app.database.tables import inspections
from app.dependencies import Category, DriftPart, HistoryPart, SettingsPart
from app.errors.problems import Problem
from app.history import rates, reports, training_set
from app.history.shift_report import shift_report
from app.http.sending import LimitedStreamingResponse
from app.registry import catalogue
from app.routes.openapi import documented
from app.routes.parameters import AnySpan, OfStation, ShiftSpan
from app.schemas.reports import DriftReport, DriftStatistic, Rates, ShiftReport
from flows.fastflow import models_folder

router = APIRouter(tags=["reports"])

_ZIP: Final = "application/zip"


@router.get(
    "/v1/models/{category}/rates",
    responses=documented("invalid-request", "unknown-model", "internal", "history-unavailable"),
)
def get_rates(
    category: Category, _: MaySeeHistory, settings: SettingsPart, history: HistoryPart, asked: AnySpan
) -> Rates:
    """Estimate how many good parts are rejected and how many defective ones pass, from reviews.

    Rejected parts are reviewed more often than passed ones, so shares are estimated within each decision and
    weighted by its inspections. Where nothing of a decision was reviewed, the rates cannot be known: review
    some of every decision, drawn at random. By default over all that is kept.
    """
    with history.database.read() as connection:
        _require_known(connection, settings, category)
        span = reports.complete(connection, asked)
        counts = reports.counts(connection, category, span)
    return Rates(
        category=category,
        from_=clock.iso(span.from_ms),
        to=clock.iso(span.to_ms),
        decisions=counts,
        overkill=rates.overkill(counts),
        escape=rates.escape(counts),
    )


@router.get(
    "/v1/models/{category}/drift", responses=documented("unknown-model", "internal", "history-unavailable")
)
def get_drift(
    category: Category, _: MaySeeHistory, drift: DriftPart, station: OfStation = None
) -> DriftReport:
    """Tell whether the latest inspections still look like the calibration images that are in force.

    Scores and features are compared. The window begins again when another version, region or calibration is
    set. A station with a calibration of its own is compared with that, apart from the others: ask for it by
    `station`; which of these alarm is told in any case.
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
    caller: MaySeeHistory, history: HistoryPart, drift: DriftPart, asked: ShiftSpan, station: OfStation = None
) -> ShiftReport:
    """Sum up a shift by category: decisions by station and hour, overkill and escape, the worst parts.

    Also drift as it is now, and what was changed about models and thresholds. By default the last 8 hours.
    """
    return shift_report(history.database, drift, asked, caller.categories, station)


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
    category: Category, caller: MayReview, settings: SettingsPart, history: HistoryPart
) -> Response:
    """Give the pictures whose latest review is good, as a ZIP in the layout that training reads.

    Each picture is in it once; one that another review calls a defect is not. What people review is a
    selection: the threshold of a version that is trained with these pictures promises its rate for such, so
    renew its calibration with good pictures as they come along.
    """
    with history.database.read() as connection:
        _require_known(connection, settings, category)
    chosen = training_set.good_pictures(history.database, category)
    first = next(chosen, None)
    if first is None:
        raise Problem("conflict", f"No picture that is kept of {category!r} has been reviewed as good yet.")
    return LimitedStreamingResponse(
        history.archives,
        caller.key_id,
        training_set.archive(chain([first], chosen), history.pictures, category),
        headers={
            "Content-Disposition": f'attachment; filename="{category}-training-set.zip"',
            "Cache-Control": "no-store",
        },
        media_type=_ZIP,
    )


def _require_known(connection: Connection, settings: SettingsPart, category: str) -> None:
    """A category that was inspected once may be asked about, even if its models are gone."""
    if models_folder.is_category(category):
        if models_folder.versions(settings.models, category):
            return
        inspected = select(inspections.c.id).where(inspections.c.category == category).limit(1)
        if connection.scalar(inspected) is not None:
            return
    raise catalogue.unknown_model(settings.models, category, None)
