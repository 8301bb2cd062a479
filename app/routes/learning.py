"""Learning from reviewed inspections: a new version of a model, without training."""

import asyncio
from datetime import UTC, datetime

from fastapi import APIRouter, Request, Response

from app.auth.audit import audited
from app.auth.permissions import MaySeeHistory, MayTune
from app.database import clock
from app.dependencies import Category, HistoryDep, LearningDep, StoreDep
from app.errors.problems import Problem
from app.http.preconditions import READING_PROBLEMS
from app.inspection.decision import to_schema
from app.learning.reviews import find_learning_set
from app.registry import model_settings
from app.registry.model_store import ModelStore
from app.routes.calibrations import describe_calibration
from app.routes.openapi import documented
from app.routes.parameters import From
from app.routes.versions import LOCATION
from app.schemas import learning as schemas
from app.schemas.models import LearnedInfo
from flows.fastflow.calibration.conformal import describe_promise
from flows.fastflow.detector import Detector, bundle_calibrator
from flows.fastflow.manifest import Manifest

router = APIRouter(prefix="/v1/models/{category}/learning", tags=["models"])


@router.get("", responses=documented(*READING_PROBLEMS, "history-unavailable"))
async def get_learning(
    category: Category,
    store: StoreDep,
    history: HistoryDep,
    learning: LearningDep,
    _: MaySeeHistory,
    made_from: From = None,
) -> schemas.LearningState:
    """Return what the active version would learn from, and the reason why it cannot."""
    detector = await store.loaded_models.get(category)
    since_ms = 0 if made_from is None else clock.from_datetime(made_from)
    found = await asyncio.to_thread(find_learning_set, history, store.models, detector, since_ms)
    progress = learning.progress(category)
    return schemas.LearningState(
        category=category,
        version=detector.manifest.version,
        defects=len(found.defects),
        good=len(found.good),
        left_out=found.left_out,
        since=None if found.since_ms is None else datetime.fromtimestamp(found.since_ms / 1000, UTC),
        obstacle="running" if progress is not None else found.obstacle and found.obstacle[0],
        progress=progress,
    )


@router.post(
    "",
    status_code=201,
    responses={
        **LOCATION,
        **documented(
            *READING_PROBLEMS, "conflict", "too-large", "queue-full", "draining", "history-unavailable"
        ),
    },
)
async def learn_from_reviews(
    category: Category,
    request: Request,
    response: Response,
    store: StoreDep,
    history: HistoryDep,
    learning: LearningDep,
    _: MayTune,
    made_from: From = None,
) -> schemas.LearnedVersion:
    """Make a version that has learned from reviewed inspections; it does not serve until it is activated.

    Nothing is trained: a small part is added to the scores of the active version. Thresholds follow from the
    calibration of its training, with images that this part has not seen, so they keep their promise even if
    reviews are wrong. Later calibrations refuse the images learned from.

    The work runs beside inspections and goes on if the client leaves. One category learns at a time.
    """
    since_ms = 0 if made_from is None else clock.from_datetime(made_from)
    async with audited(request, "model.learn", category) as detail:
        detector = await store.loaded_models.get(category)
        found = await asyncio.to_thread(find_learning_set, history, store.models, detector, since_ms)
        if found.obstacle is not None:
            raise Problem("conflict", found.obstacle[1])
        manifest, sha256 = await learning.learn(found)
        learned = await asyncio.to_thread(_describe, store, detector, manifest, sha256)
        detail |= learned.model_dump(include={"version", "from_version", "learned"})
    response.headers["Location"] = f"/v1/models/{category}/versions/{manifest.version}"
    return learned


def _describe(
    store: ModelStore, detector: Detector, manifest: Manifest, sha256: str
) -> schemas.LearnedVersion:
    in_force = describe_calibration(store, detector, None)
    own = bundle_calibrator(manifest, sha256, detector.scorer.precision)
    calibrator = own or bundle_calibrator(manifest, sha256, "float32")
    assert calibrator is not None  # noqa: S101  (each version has one for float32)
    threshold = to_schema(model_settings.apply_settings(calibrator, store.settings(manifest.category)))
    warnings = []
    if in_force.origin is not None or in_force.stations:
        warnings.append(
            f"Calibrations with images of the line belong to version {in_force.version}. Calibrate again "
            "after the activation."
        )
    return schemas.LearnedVersion(
        category=manifest.category,
        version=manifest.version,
        from_version=in_force.version,
        learned=LearnedInfo.model_validate(manifest.learned, from_attributes=True),
        before=in_force.threshold,
        threshold=threshold,
        promise=describe_promise(threshold.n_calibration, threshold.target_fpr),
        warnings=warnings,
    )
