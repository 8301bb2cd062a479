"""How inspection fares: overkill and escape, shifts, drift, and the pictures to train the next version on."""

from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import chain
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from sqlalchemy import Connection, select
from starlette.responses import Response, StreamingResponse

from app import forms, store
from app.access import MayReview, MaySeeHistory
from app.database import clock
from app.database.tables import inspections
from app.dependencies import Category, DriftPart, HistoryPart, SettingsPart
from app.history import rates, reports, training_set
from app.history.reports import Span
from app.openapi import documented
from app.problems import Problem
from app.schemas import reports as schemas
from flows.fastflow import bundle

router = APIRouter(tags=["reports"])

_SHIFT_MS: Final = 8 * 3_600_000
_LONGEST_SHIFT_MS: Final = 31 * 24 * 3_600_000
# Ids begin with 1970, and ISO 8601 has no year 10000.
_LAST_MS: Final = clock.from_datetime(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))

From = Annotated[
    datetime | None,
    Query(
        alias="from",
        description="Inspections made at this time or later; UTC unless it says otherwise.",
        examples=["2026-11-25T06:00:00Z"],
    ),
]
To = Annotated[
    datetime | None,
    Query(
        alias="to", description="Inspections made before; now by default.", examples=["2026-11-25T14:00:00Z"]
    ),
]


@router.get(
    "/v1/models/{category}/rates",
    responses=documented("invalid-request", "unknown-model", "internal", "history-unavailable"),
)
def get_rates(
    category: Category,
    _: MaySeeHistory,
    settings: SettingsPart,
    history: HistoryPart,
    made_from: From = None,
    made_before: To = None,
) -> schemas.Rates:
    """Estimate how many good parts are rejected and how many defective ones pass, from reviews.

    Rejected parts are reviewed more often than passed ones, so shares are estimated within each decision and
    weighted by its inspections. Where nothing of a decision was reviewed, the rates cannot be known: review
    some of every decision, drawn at random. By default over all that is kept.
    """
    asked = _span(made_from, made_before, None)
    with history.database.read() as connection:
        _expect_known(connection, settings, category)
        span = reports.complete(connection, asked)
        strata = reports.strata(connection, category, span)
    return schemas.Rates(
        category=category, from_=clock.iso(span.from_ms), to=clock.iso(span.to_ms), **_rated(strata)
    )


@router.get("/v1/reports/shift", responses=documented("invalid-request", "internal", "history-unavailable"))
def get_shift(
    caller: MaySeeHistory,
    history: HistoryPart,
    made_from: From = None,
    made_before: To = None,
    station: Annotated[
        str | None,
        Query(
            description="Only inspections of this station.",
            max_length=forms.MAX_TEXT,
            pattern=forms.TEXT_PATTERN,
            examples=["line-3"],
        ),
    ] = None,
) -> schemas.ShiftReport:
    """Sum up a shift by category: decisions, versions, overkill and escape. By default the last 8 hours."""
    asked = _span(made_from, made_before, _SHIFT_MS)
    if asked.to_ms - asked.from_ms > _LONGEST_SHIFT_MS:
        raise Problem("invalid-request", "query parameter from: a report covers 31 days at most")
    with history.database.read() as connection:
        span = reports.complete(connection, asked)
        shifts = reports.shifts(connection, span, caller.categories, station)
    return schemas.ShiftReport(
        from_=clock.iso(span.from_ms),
        to=clock.iso(span.to_ms),
        station=station,
        categories=[
            schemas.ShiftCategory(
                category=shift.category, versions=dict(shift.versions), **_rated(shift.strata)
            )
            for shift in shifts
        ],
    )


@router.get(
    "/v1/models/{category}/drift", responses=documented("unknown-model", "internal", "history-unavailable")
)
def get_drift(category: Category, _: MaySeeHistory, drift: DriftPart) -> schemas.DriftReport:
    """Tell whether the latest inspections still look like the calibration images of the active version.

    Scores and features are compared. The window begins again when another version or region is set.
    """
    state = drift.state(category) if bundle.is_category(category) else None
    if state is None:
        raise Problem("unknown-model", f"No version of {category[:64]!r} is active.")
    return schemas.DriftReport(
        category=category,
        version=state.version,
        alarm=state.alarm,
        alarm_since=_made(state.alarm_since),
        window=drift.window,
        inspections=state.inspections,
        since=_made(state.since),
        statistics=[
            schemas.DriftStatistic(
                name=one.name,
                inspections=one.inspections,
                n_calibration=one.n_calibration,
                distance=one.distance,
                alarm_distance=one.alarm_distance,
                shift=one.shift,
                p_value=one.p_value,
            )
            for one in state.comparisons
        ],
    )


_ZIP: Final = "application/zip"
_ARCHIVE: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The archive; unpacked, it is a data folder for `flowgauge train`.",
        "content": {_ZIP: {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.get(
    "/v1/models/{category}/training-set",
    response_class=Response,
    responses={
        **_ARCHIVE,
        **documented("unknown-model", "conflict", "internal", "history-unavailable"),
    },
)
def get_training_set(
    category: Category, _: MayReview, settings: SettingsPart, history: HistoryPart
) -> Response:
    """Give the pictures whose latest review is good, as a ZIP in the layout that training reads.

    Each picture is in it once; one that another review calls a defect is not.
    """
    with history.database.read() as connection:
        _expect_known(connection, settings, category)
    chosen = training_set.good_pictures(history.database, category)
    first = next(chosen, None)
    if first is None:
        raise Problem("conflict", f"No picture that is kept of {category!r} has been reviewed as good yet.")
    return StreamingResponse(
        training_set.archive(chain([first], chosen), history.pictures, category),
        headers={
            "Content-Disposition": f'attachment; filename="{category}-training-set.zip"',
            "Cache-Control": "no-store",
        },
        media_type=_ZIP,
    )


def _span(made_from: datetime | None, made_before: datetime | None, length_ms: int | None) -> Span:
    """The time asked for; so long before its end where no begin is given, or from the first inspection on."""
    to_ms = clock.now_ms() if made_before is None else clock.from_datetime(made_before)
    from_ms = clock.from_datetime(made_from) if made_from is not None else to_ms - (length_ms or to_ms)
    if from_ms >= to_ms and made_from is not None:
        raise Problem("invalid-request", "query parameter from: must be before `to`")
    return Span(*(min(max(ms, 0), _LAST_MS) for ms in (from_ms, to_ms)))


def _expect_known(connection: Connection, settings: SettingsPart, category: str) -> None:
    """A category that was inspected once may be asked about, even if its models are gone."""
    if bundle.is_category(category):
        if bundle.versions(settings.models, category):
            return
        inspected = select(inspections.c.id).where(inspections.c.category == category).limit(1)
        if connection.scalar(inspected) is not None:
            return
    raise store.unknown(category, None)


def _rated(strata: Mapping[rates.Decision, rates.Stratum]) -> dict[str, Any]:
    return {
        "decisions": {
            decision: schemas.Counts(
                inspections=stratum.inspections,
                reviewed_good=stratum.good,
                reviewed_defect=stratum.defect,
            )
            for decision, stratum in strata.items()
        },
        "overkill": _rate(rates.overkill(strata)),
        "escape": _rate(rates.escape(strata)),
    }


def _rate(rate: rates.Rate) -> schemas.Rate:
    return schemas.Rate(value=rate.value, low=rate.low, high=rate.high, reason=rate.reason)


def _made(inspection_id: str | None) -> str | None:
    return None if inspection_id is None else clock.iso(clock.time_of(inspection_id))
