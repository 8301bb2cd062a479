"""What other thresholds would do: what they promise, and what they would have done to the latest parts."""

import asyncio
from typing import Annotated, Final

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool

from app import verdict
from app.access import MaySeeHistory
from app.calibrations import Slot, or_own
from app.category_settings import CategorySettings
from app.database import clock
from app.dependencies import Category, HistoryPart, ResidencyPart, StorePart
from app.history import changes, outlook, reports
from app.history.outlook import Kept, Limits, Seen, Would
from app.history.reports import Span
from app.openapi import documented
from app.preconditions import READING_PROBLEMS
from app.problems import Problem
from app.routes.reports import shown_counts
from app.routes.spans import From, To, span
from app.routes.stations import StationOfCalibration
from app.schemas import outlook as schemas
from flows.fastflow import conformal
from flows.fastflow.calibration import Calibrator, Thresholds
from flows.fastflow.detector import Detector

router = APIRouter(prefix="/v1/models/{category}/thresholds", tags=["models"])

# What people ask for, from one good part in two thousand to one in five.
RATES: Final = (
    0.0005,
    0.001,
    0.002,
    0.003,
    0.005,
    0.0075,
    0.01,
    0.015,
    0.02,
    0.03,
    0.05,
    0.075,
    0.1,
    0.15,
    0.2,
)
MOST_RATES: Final = 50

Rates = Annotated[
    list[Annotated[float, Query(gt=0, lt=1)]] | None,
    Query(
        alias="target_fpr",
        max_length=MOST_RATES,
        description="Rates to look at, each as a parameter of its own; by default some from 0.0005 to 0.2. "
        "The rate in force is always among them.",
        examples=[[0.005, 0.01]],
    ),
]
Band = Annotated[
    float | None,
    Query(ge=0, lt=1, description="As if this review band were set, 0 for none; by default as it is set."),
]
Last = Annotated[
    int,
    Query(ge=1, le=50_000, description="So many of the category's latest inspections are looked through."),
]


@router.get("/outlook", responses=documented(*READING_PROBLEMS, "history-unavailable"))
async def get_outlook(
    category: Category,
    _: MaySeeHistory,
    residency: ResidencyPart,
    store: StorePart,
    history: HistoryPart,
    rates: Rates = None,
    review_fpr: Band = None,
    station: StationOfCalibration = None,
    made_from: From = None,
    made_before: To = None,
    last: Last = 10_000,
) -> schemas.Outlook:
    """Tell what false-reject rates would do if they were set: the thresholds, and what they certify.

    Also what they would have done: how many of the latest inspections would have been decided otherwise, and
    by their reviews, how many good parts would have been rejected and how many defective ones passed,
    weighted as /rates does. Only inspections count whose scores compare: by the version in force, on engines
    of the precision that serves, since a region of interest was last changed (and, with a region, a
    calibration), of stations with the same calibration.
    """
    asked = span(made_from, made_before, None)
    detector = await residency.get(category)
    settings = await asyncio.to_thread(store.settings, category)
    if review_fpr is not None:
        settings = settings.model_copy(update={"review_fpr": review_fpr})

    def look() -> schemas.Outlook:
        slot = Slot.of(detector, station)
        found = store.calibrations.find(slot)
        calibrator = or_own(detector, found)
        own = store.calibrations.stations(slot)
        positions = _positions(calibrator, settings, rates)
        limits = [Limits(one.reject.reject, one.review) for one in positions]
        with history.database.read() as connection:
            complete = reports.complete(connection, asked)
            # With a region, scores are made otherwise by another calibration.
            has_region = _has_region(settings, station, own)
            begin = complete.from_ms
            for action in (changes.REGION, *([changes.CALIBRATION] if has_region else [])):
                changed = changes.changed_ms(connection, category, action)
                begin = max([begin, *(ms for name, ms in changed.items() if _concerns(name, station, own))])
            within = Span(min(begin, complete.to_ms), complete.to_ms)
            without = own if station is None else ()
            version, precision = detector.manifest.version, slot.precision
            kept = Kept(category, version, precision, within, last, station, without)
            seen = outlook.look(connection, kept, limits)
        return _told(detector, calibrator, settings, positions, kept, seen, own)

    # Not among the threads that predictions look up their idempotency keys in: this may take a while.
    return await run_in_threadpool(look)


def _positions(
    calibrator: Calibrator, settings: CategorySettings, rates: list[float] | None
) -> list[Thresholds]:
    in_force = settings.target_fpr or calibrator.target_fpr
    wanted = sorted({in_force, *(RATES if rates is None else rates)})
    return [
        verdict.thresholds(calibrator, settings.model_copy(update={"target_fpr": rate})) for rate in wanted
    ]


def _concerns(name: str | None, station: str | None, own: list[str]) -> bool:
    """Whether what was changed for a station (None: for all without their own) matters to those asked for."""
    return name is None or (name == station if station is not None else name not in own)


def _has_region(settings: CategorySettings, station: str | None, own: list[str]) -> bool:
    """Whether a region holds at the station; for None, at any without a calibration of its own."""
    if station is not None:
        return settings.region_of(station)[1] is not None
    return settings.region is not None or bool(settings.stations.keys() - set(own))


def _told(
    detector: Detector,
    calibrator: Calibrator,
    settings: CategorySettings,
    positions: list[Thresholds],
    kept: Kept,
    seen: Seen,
    stations: list[str],
) -> schemas.Outlook:
    in_force = settings.target_fpr or calibrator.target_fpr
    has_region = _has_region(settings, kept.station, stations)
    return schemas.Outlook(
        category=kept.category,
        version=kept.version,
        engine=detector.engine,
        station=kept.station,
        stations=stations,
        target_fpr=in_force,
        review_fpr=verdict.review_fpr(calibrator, settings),
        window=schemas.Window(
            from_=None if seen.first_ms is None else clock.iso(seen.first_ms),
            to=clock.iso(kept.span.to_ms),
            last=kept.last,
            inspections=sum(stratum.inspections for stratum in seen.strata.values()),
            decisions=shown_counts(seen.strata),
        ),
        positions=[
            _position(one, would, calibrator, settings, in_force, has_region=has_region)
            for one, would in zip(positions, seen.positions, strict=True)
        ],
    )


def _position(
    one: Thresholds,
    would: Would,
    calibrator: Calibrator,
    settings: CategorySettings,
    in_force: float,
    *,
    has_region: bool,
) -> schemas.Position:
    rate = one.reject.target_fpr
    low, high = conformal.realised_range(one.reject.n_calibration, rate)
    # A region of interest only lowers scores: how far, calibration says nothing of.
    expected = schemas.Expected(low=0.0 if has_region else low, high=high)
    return schemas.Position(
        target_fpr=rate,
        in_force=rate == in_force,
        settable=_settable(calibrator, settings, rate),
        threshold=verdict.shown(one),
        expected=expected,
        decisions=dict(would.decisions),
        changed=sum(would.changes.values()),
        changes=[
            schemas.Change(taken=taken, would=other, inspections=n)
            for (taken, other), n in would.changes.items()
        ],
        overkill=would.overkill,
        escape=would.escape,
    )


def _settable(calibrator: Calibrator, settings: CategorySettings, rate: float) -> bool:
    try:
        verdict.expect_band(calibrator, settings.model_copy(update={"target_fpr": rate}))
    except Problem:
        return False
    return True
