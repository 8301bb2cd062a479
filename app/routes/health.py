"""Liveness and readiness, for load balancers and orchestrators."""

from fastapi import APIRouter

from app.dependencies import BatcherDep, DrainingDep, LoadedModelsDep
from app.errors.problems import Problem
from app.routes.openapi import documented
from app.schemas.health import Health

router = APIRouter(prefix="/health", tags=["health"])


@router.head("/live", include_in_schema=False)  # some load balancers probe with HEAD
@router.get("/live", responses=documented("internal"))
async def live(batcher: BatcherDep) -> Health:
    """Answer 200 while the process works. 503 means that the device is lost: restart the server."""
    if batcher.lost is not None:
        raise Problem("internal", batcher.lost)
    return Health(status="live")


# Asynchronous, although it reads the models folder: the threads of other routes may all wait for a hanging
# database, which must not make the server look unready for predictions.
@router.head("/ready", include_in_schema=False)
@router.get("/ready", responses=documented("internal", "model-loading", "draining"))
async def ready(loaded_models: LoadedModelsDep, batcher: BatcherDep, draining: DrainingDep) -> Health:
    """Answer 200 when the active model of each category is loaded.

    If an active version cannot be loaded at start, this stays at 503 while other categories are served. The
    server tries again until it loads or another version is activated. A version that fails later leaves this
    at 200. A server that is stopping, or whose device is lost, is not ready.

    A full history, or a database or a store that does not answer, leaves this at 200, because predictions
    with store=false need none. See the metrics `flowgauge_history_accepting` and `flowgauge_history_failing`.
    """
    draining.require_not_begun()
    loaded_models.require_ready()
    batcher.require_alive()
    return Health(status="ready")
