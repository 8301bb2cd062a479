"""Reviewed inspections that a version can learn from; a job of the kind `learn` does it."""

import asyncio
from datetime import UTC, datetime

from fastapi import APIRouter

from app.auth.permissions import MaySeeHistory
from app.database import clock
from app.dependencies import Category, HistoryDep, StoreDep
from app.http.preconditions import READING_PROBLEMS
from app.learning.reviews import LearningSet, find_learning_set
from app.routes.openapi import documented
from app.routes.parameters import From
from app.schemas import learning as schemas

router = APIRouter(prefix="/v1/models/{category}/learning", tags=["models"])


@router.get("", responses=documented(*READING_PROBLEMS, "history-unavailable"))
async def get_learning(
    category: Category, store: StoreDep, history: HistoryDep, _: MaySeeHistory, made_from: From = None
) -> schemas.LearningState:
    """Return what the active version would learn from, and the reason why it cannot."""
    manifest = (await store.loaded_models.get(category)).manifest
    since_ms = 0 if made_from is None else clock.from_datetime(made_from)

    def find() -> LearningSet:
        store.fetch(store.models / category / manifest.version)
        return find_learning_set(history, store.models, manifest, since_ms)

    found = await asyncio.to_thread(find)
    return schemas.LearningState(
        category=category,
        version=manifest.version,
        defects=len(found.defects),
        good=len(found.good),
        left_out=found.left_out,
        since=None if found.since_ms is None else datetime.fromtimestamp(found.since_ms / 1000, UTC),
        obstacle=found.obstacle and found.obstacle[0],
    )
