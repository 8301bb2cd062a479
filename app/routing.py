"""All routes of the service, in the order in which they are tried.

Put together once: what FastAPI makes of a route (a validator for each parameter of all that it depends on)
then serves every app of a process.
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
    inspection,
    inspections,
    keys,
    metrics,
    models,
    open_inference,
    outlook,
    predict,
    reference,
    reports,
    session,
    tuning,
    versions,
)
from app.routes.pages import PAGES


def _put_together() -> tuple[BaseRoute, ...]:
    every = APIRouter()
    strict = [Depends(require_known_query)]
    # First, for it is nearly all that is asked for.
    every.include_router(predict.router, dependencies=[*strict, Depends(require_not_draining)])
    for operation in (health, session, metrics, reference):
        every.include_router(operation.router)
    for resource in (
        models,
        versions,
        tuning,
        outlook,
        calibrations,
        keys,
        audit,
        deletions,
        inspections,
        inspection,
        reports,
        events,
    ):
        every.include_router(resource.router, dependencies=strict)
    every.include_router(open_inference.router)
    for page in PAGES:
        every.include_router(page, include_in_schema=False)
    return tuple(every.routes)


ROUTES: Final = _put_together()
