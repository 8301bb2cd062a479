"""The service: `create_app(settings)` puts its parts together."""

import asyncio
import importlib.metadata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app import problems
from app.admission import Admission
from app.inference import Inference
from app.openapi import Service
from app.request_context import RequestContext
from app.residency import Residency
from app.routes import health, models, predict
from app.settings import Settings
from flows.fastflow.images import Limits


def create_app(settings: Settings) -> FastAPI:
    """Make the service. Two of them share nothing."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.settings = settings
        app.state.admission = Admission(settings.queue_images, settings.queue_bytes)
        app.state.inference = inference = Inference(
            Limits(settings.max_bytes, settings.max_pixels), settings.decode_threads
        )
        app.state.residency = residency = Residency(settings.models, settings.device, settings.extra_versions)
        # In the background: the process answers /health/live and /docs while models load.
        preloading = asyncio.create_task(residency.preload()) if settings.preload else None
        yield
        if preloading is not None:
            preloading.cancel()
        inference.close()
        residency.close()

    app = Service(
        title="FlowGauge",
        summary="Visual inspection: a score, a decision and a heatmap for every image.",
        description="Errors are RFC 9457 problem details: branch on `type`. Every answer has X-Request-ID.",
        version=importlib.metadata.version("flowgauge"),
        lifespan=lifespan,
        redoc_url=None,
        # A redirect would answer what is nothing but an unknown path.
        redirect_slashes=False,
    )
    app.add_middleware(RequestContext)
    problems.install(app)
    for resource in (health, models, predict):
        app.include_router(resource.router)
    return app
