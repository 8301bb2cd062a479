"""Pages of the products: the list, and the page where one is taught."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from app.auth.permissions import MaySeeHistory, MaySeeModels
from app.dependencies import DriftDep, LoadedModelsDep, ProductsDep, SettingsDep
from app.errors.problems import Problem
from app.history.drift import DriftMonitor
from app.registry.catalogue import require_readable
from app.registry.loaded_models import LoadedModels
from app.routes import models
from app.routes.pages.filter import visible_categories
from app.routes.products import ProductInPath
from app.schemas.access import Permission
from app.web.page import PagePart, PageRoute
from app.web.templating import data
from flows.fastflow.bundle import models_folder
from flows.fastflow.config import MIN_GOOD_IMAGES

router = APIRouter(route_class=PageRoute)


@router.get("/products", response_class=Response)
async def show_products(
    caller: MaySeeModels,
    page: PagePart,
    settings: SettingsDep,
    products: ProductsDep,
    loaded_models: LoadedModelsDep,
    drift: DriftDep,
) -> Response:
    """List the products, and categories that were trained elsewhere."""
    sees_history = page.may(Permission.HISTORY)
    shown_drift = drift if sees_history else None

    def read() -> list[dict[str, Any]]:
        require_readable(settings.models)
        found = [row.name for row in products.find(caller.categories)] if sees_history else []
        images = products.counts(found)
        names = sorted({*found, *visible_categories(settings.models, caller)})
        return [
            {"images": images.get(name), **_row(settings.models, name, loaded_models, shown_drift)}
            for name in names
        ]

    return page.render("products.html", rows=await asyncio.to_thread(read))


@router.get("/products/{category}", response_class=Response)
async def show_product(
    category: ProductInPath, _: MaySeeHistory, page: PagePart, settings: SettingsDep, products: ProductsDep
) -> Response:
    """Show a product and its images. Scripts teach it by /v1/products and /v1/jobs."""
    product = await asyncio.to_thread(products.get, category)
    passed = {
        "category": product.name,
        "maxBytes": settings.max_bytes,
        "minGood": MIN_GOOD_IMAGES,
        "teaches": page.may(Permission.TEACH),
        "activates": page.may(Permission.ADMIN),
    }
    return page.render(
        "product.html",
        name=product.name,
        folders=[str(root) for root in settings.import_roots],
        max_bytes=settings.max_bytes,
        passed=data(passed),
    )


def _row(
    folder: Path, category: str, loaded_models: LoadedModels, drift: DriftMonitor | None
) -> dict[str, Any]:
    """Build a row of the list.

    `named` is the version that is recorded as active. It may be missing, or refused for the reason in
    `refusal`; then the version `serving` may serve in its place.
    """
    named = models_folder.active_version(folder, category)
    versions = models_folder.versions(folder, category)
    serving = loaded_models.serving_version(category)
    active = None
    if named is not None:
        with suppress(Problem):  # the version's directory is missing
            active = models.describe_version(folder, category, named, ())
    return {
        "category": category,
        "versions": len(versions),
        "state": "serving" if serving or named else "idle" if versions else "untaught",
        "active": active,
        "named": named,
        "refusal": loaded_models.refusal(category, named),
        "serving": serving,
        "drift": [] if drift is None else drift.windows(category),
    }
