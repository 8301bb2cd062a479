"""Whether the process lives and can do its work, in the words of the Open Inference Protocol."""

from fastapi import APIRouter

from app.dependencies import BatcherPart, DrainingPart, ResidencyPart
from app.openapi import documented
from app.problems import Problem
from app.schemas.open_inference import Live, Ready

router = APIRouter(prefix="/v2/health", tags=["open inference"])


@router.get("/live", responses=documented("internal", open_inference=True))
async def live(batcher: BatcherPart) -> Live:
    """Answer 200 as long as the process can answer, unless its device is lost: then it must be restarted."""
    if batcher.lost is not None:
        raise Problem("internal", batcher.lost)
    return Live(live=True)


@router.get("/ready", responses=documented("internal", "model-loading", "draining", open_inference=True))
async def ready(residency: ResidencyPart, batcher: BatcherPart, draining: DrainingPart) -> Ready:
    """Answer 200 when every active model is loaded, as /health/ready."""
    draining.expect_not_begun()
    residency.expect_ready()
    batcher.require_alive()
    return Ready(ready=True)
