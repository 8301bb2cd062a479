"""The operator's pages. They are not part of the OpenAPI document."""

from typing import Final

from fastapi import APIRouter

from app.routes.pages import (
    admin,
    audit_queue,
    inspection,
    login,
    manual_inspection,
    models,
    products,
    report,
    scores,
    search,
    static,
    typical_image,
    wall,
)

PAGES: Final[tuple[APIRouter, ...]] = (
    login.router,
    manual_inspection.router,
    static.router,
    wall.router,
    search.router,
    scores.router,
    inspection.router,
    audit_queue.router,
    products.router,
    models.router,
    typical_image.router,
    report.router,
    admin.router,
)
