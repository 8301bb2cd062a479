"""All routes of the service, in the order of matching.

They are built once, so that all apps of a process share FastAPI's validators, which are slow to build.
"""

from typing import Final

from fastapi import APIRouter, Depends
from starlette.routing import BaseRoute

from app.dependencies import require_not_draining
from app.http.query_parameters import require_known_query
from app.routes import (
    audit,
    calibrations,
    deletions,
    events,
    health,
    history,
    inspection,
    jobs,
    keys,
    learning,
    metrics,
    models,
    open_inference,
    outlook,
    parts,
    predict,
    product_images,
    product_uploads,
    products,
    reference,
    regions,
    reports,
    session,
    thresholds,
    versions,
)
from app.routes.pages import PAGES


def _collect_routes() -> tuple[BaseRoute, ...]:
    router = APIRouter()
    strict = [Depends(require_known_query)]
    # First, because nearly all requests are predictions.
    router.include_router(predict.router, dependencies=[*strict, Depends(require_not_draining)])
    for operation in (health, session, metrics, reference):
        router.include_router(operation.router)
    for resource in (
        models,
        versions,
        thresholds,
        regions,
        outlook,
        calibrations,
        learning,
        products,
        product_uploads,
        product_images,
        jobs,
        keys,
        audit,
        deletions,
        history,
        parts,
        inspection,
        reports,
        events,
    ):
        router.include_router(resource.router, dependencies=strict)
    router.include_router(open_inference.router)
    for page in PAGES:
        router.include_router(page, include_in_schema=False)
    return tuple(router.routes)


ROUTES: Final = _collect_routes()
