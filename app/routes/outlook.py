"""Outlook on other thresholds: their promises, and the decisions they would have made."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Final

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool

from app.auth.permissions import MaySeeHistory
from app.database import clock
from app.database.engine import Database
from app.dependencies import Category, HistoryDep, JobsDep, LoadedModelsDep, StoreDep
from app.history import changes, decision_counts, outlook
from app.history.decision_counts import TimeSpan
from app.history.outlook import ThresholdPosition
from app.http.preconditions import READING_PROBLEMS
from app.inspection.decision import to_schema
from app.jobs.evaluations import VersionEvaluation, find_evaluation
from app.jobs.runner import JobRunner
from app.registry import model_settings
from app.registry.calibrations import CalibrationTarget, choose_calibrator
from app.registry.model_store import ModelStore
from app.routes.openapi import documented
from app.routes.parameters import StationOfCalibration
from app.schemas import outlook as schemas
from app.schemas.history import Verdict
from flows.fastflow.detector import Detector

router = APIRouter(prefix="/v1/models/{category}/thresholds", tags=["models"])

# From one good part in two thousand to one in five.
_STEPS: Final = (5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 1500, 2000)
RATES: Final = tuple(step / 10_000 for step in _STEPS)
MAX_RATES: Final = 50
_MAX_INSPECTIONS: Final = 10_000
_MAX_SCORES: Final = 1000

Rates = Annotated[
    list[Annotated[float, Query(gt=0, lt=1)]] | None,
    Query(
        alias="target_fpr",
        max_length=MAX_RATES,
        description="False-reject rates. May be repeated; by default some from 0.0005 to 0.2. "
        "The rate in force is always among them.",
        examples=[[0.005, 0.01]],
    ),
]
Band = Annotated[float | None, Query(ge=0, lt=1, description="Review rate, 0 for none; by default as set.")]


@router.get("/outlook", responses=documented(*READING_PROBLEMS, "history-unavailable"))
async def get_outlook(
    category: Category,
    _: MaySeeHistory,
    loaded_models: LoadedModelsDep,
    store: StoreDep,
    history: HistoryDep,
    jobs: JobsDep,
    rates: Rates = None,
    review_fpr: Band = None,
    station: StationOfCalibration = None,
) -> schemas.Outlook:
    """Return the thresholds and the effects of false-reject rates before they are set.

    The effects are counted over the latest inspections: how many decisions would change, and from reviews,
    how many good parts would be rejected and how many defective ones passed, weighted as in /rates. Only
    inspections with comparable scores count: same version, precision, calibration and region of interest.
    """
    detector = await loaded_models.get(category)
    # The query may be slow: it must not occupy the threads in which predictions look up idempotency keys.
    return await run_in_threadpool(
        _project_outlook, store, history.database, jobs, detector, station, rates, review_fpr
    )


def _project_outlook(
    store: ModelStore,
    database: Database,
    jobs: JobRunner,
    detector: Detector,
    station: str | None,
    rates: list[float] | None,
    review_fpr: float | None,
) -> schemas.Outlook:
    slot = CalibrationTarget.of(detector, station)
    category, version = slot.manifest.category, slot.manifest.version
    settings = store.settings(category)
    if review_fpr is not None:
        settings = settings.model_copy(update={"review_fpr": review_fpr})
    calibrator = choose_calibrator(detector, store.calibrations.find(slot))
    stations = store.calibrations.stations(slot)
    in_force = settings.target_fpr or calibrator.target_fpr
    target_rates = sorted({in_force, *(RATES if rates is None else rates)})
    thresholds = [
        model_settings.apply_settings(calibrator, settings.model_copy(update={"target_fpr": rate}))
        for rate in target_rates
    ]
    without = stations if station is None else ()
    has_region = settings.region is not None or bool(settings.stations)
    # With a region, scores depend on the calibration.
    actions = (changes.REGION, changes.CALIBRATION) if has_region else (changes.REGION,)
    with database.read() as connection:
        since_ms = changes.last_changed_ms(connection, category, actions)
        span = decision_counts.skip_deleted(connection, TimeSpan(since_ms, max(since_ms, clock.now_ms())))
        limits = [ThresholdPosition(used.reject.reject, used.review) for used in thresholds]
        comparable = (connection, span.filter(category, station), version, slot.precision)
        window, projected = outlook.project(*comparable, limits, last=_MAX_INSPECTIONS, without=without)
        scored = outlook.read_scores(*comparable, last=_MAX_SCORES, without=without)
    evaluation = None if has_region else find_evaluation(jobs.store, jobs.folders, category, version)
    positions = [
        schemas.RateOption(
            target_fpr=used.reject.target_fpr,
            in_force=used.reject.target_fpr == in_force,
            settable=not settings.review_fpr or settings.review_fpr > used.reject.target_fpr,
            threshold=to_schema(used),
            **dict(decided),
        )
        for used, decided in zip(thresholds, projected, strict=True)
    ]
    return schemas.Outlook(
        category=category,
        version=version,
        engine=detector.engine,
        station=station,
        stations=stations,
        target_fpr=in_force,
        review_fpr=model_settings.resolve_review_fpr(calibrator, settings),
        window=window,
        scores=_to_samples(calibrator.scores.tolist(), scored, evaluation),
        positions=positions,
    )


def _to_samples(
    calibration: Sequence[float],
    scored: Sequence[tuple[float, Verdict | None]],
    evaluation: VersionEvaluation | None,
) -> schemas.ScoreSamples:
    good, defects = ([], []) if evaluation is None else evaluation.read_scores()

    def rounded(scores: Iterable[float]) -> list[float]:
        return [round(score, 4) for score in scores]

    return schemas.ScoreSamples(
        calibration=rounded(calibration),
        inspections=rounded(score for score, _ in scored),
        defects=rounded(score for score, verdict in scored if verdict == "defect"),
        test_good=rounded(good),
        test_defects=rounded(defects),
    )
