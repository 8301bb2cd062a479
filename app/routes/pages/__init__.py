"""The operator's pages, one file each. They are for people and stand in no OpenAPI document."""

from typing import Final

from fastapi import APIRouter

from app.routes.pages import (
    counts,
    inspect,
    inspection,
    login,
    models,
    report,
    scores,
    static,
    views,
    wall,
)

PAGES: Final[tuple[APIRouter, ...]] = (
    login.router,
    static.router,
    wall.router,
    counts.router,
    inspection.router,
    views.router,
    inspect.router,
    scores.router,
    models.router,
    report.router,
)
