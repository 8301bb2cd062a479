"""How inspection fares: overkill and escape, drift, and the pictures to train the next version on."""

from collections.abc import Mapping
from functools import partial
from itertools import chain
from typing import Any, Final

from fastapi import APIRouter, Request
from sqlalchemy import Connection, select
from starlette.responses import Response

from app import catalogue, guard
from app.access import MayReview, MaySeeHistory
from app.database import clock
from app.database.tables import inspections
from app.dependencies import Category, DriftPart, HistoryPart, SettingsPart
from app.history import rates, reports, training_set
from app.openapi import documented
from app.problems import Problem
from app.routes.spans import From, OfStation, To, span
from app.schemas import reports as schemas
from app.schemas.predict import Decision
from app.sending import LimitedStreamingResponse
from flows.fastflow import models_folder

router = APIRouter(tags=["reports"])


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
    asked = span(made_from, made_before, None)
    with history.database.read() as connection:
        _expect_known(connection, settings, category)
        whole = reports.complete(connection, asked)
        strata = reports.strata(connection, category, whole)
    return schemas.Rates(
        category=category, from_=clock.iso(whole.from_ms), to=clock.iso(whole.to_ms), **rated(strata)
    )


@router.get(
    "/v1/models/{category}/drift", responses=documented("unknown-model", "internal", "history-unavailable")
)
def get_drift(
    category: Category, _: MaySeeHistory, drift: DriftPart, station: OfStation = None
) -> schemas.DriftReport:
    """Tell whether the latest inspections still look like the calibration images that are in force.

    Scores and features are compared. The window begins again when another version, region or calibration is
    set. A station with a calibration of its own is compared with that, apart from the others: ask for it by
    `station`; which of these alarm is told in any case.
    """
    state = drift.state(category, station) if models_folder.is_category(category) else None
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
        station=state.station,
        alarming_stations=[one.station for one in drift.windows(category) if one.station and one.alarm],
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
        **documented("unknown-model", "conflict", "internal", "history-unavailable", "queue-full"),
    },
)
def get_training_set(
    category: Category, caller: MayReview, settings: SettingsPart, history: HistoryPart, request: Request
) -> Response:
    """Give the pictures whose latest review is good, as a ZIP in the layout that training reads.

    Each picture is in it once; one that another review calls a defect is not. What people review is a
    selection: the threshold of a version that is trained with these pictures promises its rate for such, so
    renew its calibration with good pictures as they come along.
    """
    with history.database.read() as connection:
        _expect_known(connection, settings, category)
    chosen = training_set.good_pictures(history.database, category)
    first = next(chosen, None)
    if first is None:
        raise Problem("conflict", f"No picture that is kept of {category!r} has been reviewed as good yet.")
    return LimitedStreamingResponse(
        history.archives,
        caller.key_id,
        training_set.archive(chain([first], chosen), history.pictures, category),
        may_go_on=partial(guard.is_still_allowed, request.scope),
        headers={
            "Content-Disposition": f'attachment; filename="{category}-training-set.zip"',
            "Cache-Control": "no-store",
        },
        media_type=_ZIP,
    )


def _expect_known(connection: Connection, settings: SettingsPart, category: str) -> None:
    """A category that was inspected once may be asked about, even if its models are gone."""
    if models_folder.is_category(category):
        if models_folder.versions(settings.models, category):
            return
        inspected = select(inspections.c.id).where(inspections.c.category == category).limit(1)
        if connection.scalar(inspected) is not None:
            return
    raise catalogue.unknown_model(settings.models, category, None)


def rated(strata: Mapping[Decision, rates.Stratum]) -> dict[str, Any]:
    """Counts by decision and the rates that they give, as they go over the wire."""
    return {
        "decisions": shown_counts(strata),
        "overkill": rates.overkill(strata),
        "escape": rates.escape(strata),
    }


def shown_counts(strata: Mapping[Decision, rates.Stratum]) -> dict[Decision, schemas.Counts]:
    """Counts by decision as they go over the wire."""
    return {
        decision: schemas.Counts(
            inspections=stratum.inspections, reviewed_good=stratum.good, reviewed_defect=stratum.defect
        )
        for decision, stratum in strata.items()
    }


def _made(inspection_id: str | None) -> str | None:
    return None if inspection_id is None else clock.iso(clock.time_of(inspection_id))
