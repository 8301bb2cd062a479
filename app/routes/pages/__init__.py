"""The operator's pages. They are for people and stand in no OpenAPI document."""

from typing import Final

from fastapi import APIRouter

from app.routes.pages import entry, history, inspection, models, report

PAGES: Final[tuple[APIRouter, ...]] = (
    entry.router,
    history.router,
    inspection.router,
    models.router,
    report.router,
)
