"""Whether the process lives, and whether it can do its work: for load balancers and orchestrators."""

from fastapi import APIRouter

from app.dependencies import BatcherPart, DrainingPart, ResidencyPart
from app.errors.problems import Problem
from app.routes.openapi import documented
from app.schemas.health import Health

router = APIRouter(prefix="/health", tags=["health"])


@router.head("/live", include_in_schema=False)  # some load balancers probe by it
@router.get("/live", responses=documented("internal"))
async def live(batcher: BatcherPart) -> Health:
    """Answer 200 as long as the process can answer, unless its device is lost: then it must be restarted."""
    if batcher.lost is not None:
        raise Problem("internal", batcher.lost)
    return Health(status="live")


# Asynchronous, though it looks at the models folder, as every prediction does: the threads that other routes
# run in may all be waiting for a database that hangs, and that is no reason to send predictions elsewhere.
@router.head("/ready", include_in_schema=False)
@router.get("/ready", responses=documented("internal", "model-loading", "draining"))
async def ready(residency: ResidencyPart, batcher: BatcherPart, draining: DrainingPart) -> Health:
    """Answer 200 when the models folder can be read, and each category there was at start has been loaded.

    Where an active version cannot be loaded, this stays at 503 while other categories are served all the
    same; it is tried again until it loads or another version is activated. What can be served no longer after
    that leaves it at 200. A server that is stopping is not ready, nor one whose device is lost: that one must
    be restarted.

    A history that takes no more, or a database that does not answer, leaves this at 200: predictions with
    store=false need neither. The metrics `flowgauge_history_accepting` and `flowgauge_history_failing` tell.
    """
    draining.require_not_begun()
    residency.expect_ready()
    batcher.require_alive()
    return Health(status="ready")
