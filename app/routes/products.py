"""Products: categories that can be taught, with their datasets."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import APIRouter, Request, Response
from fastapi import Path as PathParameter
from sqlalchemy import Row
from starlette.concurrency import run_in_threadpool

from app.auth.audit import audited
from app.auth.permissions import MaySeeHistory, MayTeach
from app.database import clock
from app.dependencies import ProductsDep, SettingsDep, TeacherDep
from app.errors.problems import Problem, ProblemName
from app.http.preconditions import ETAG, IfMatch, etag, require_match
from app.products.products import Products
from app.routes.openapi import documented
from app.routes.parameters import OptionalReason
from app.schemas import products as schemas
from flows.fastflow.bundle import models_folder

router = APIRouter(prefix="/v1/products", tags=["products"])

# Without a pattern: an impossible name is an unknown product.
ProductInPath = Annotated[str, PathParameter(description="A product of /v1/products.", examples=["bottle"])]
PROBLEMS: Final[tuple[ProblemName, ...]] = ("unknown-product", "internal", "history-unavailable")
CHANGING: Final[tuple[ProblemName, ...]] = (*PROBLEMS, "invalid-request", "conflict")
_MATCHED: Final[tuple[ProblemName, ...]] = (*CHANGING, "precondition-failed", "precondition-required")


@router.get("", responses=documented("internal", "history-unavailable"))
def list_products(products: ProductsDep, settings: SettingsDep, caller: MaySeeHistory) -> schemas.ProductList:
    """List the products that the key covers, with their images and versions."""
    return schemas.ProductList(
        products=describe_products(products, settings.models, products.find(caller.categories))
    )


@router.post(
    "",
    status_code=201,
    responses={
        201: {
            "description": "The product exists.",
            "headers": {
                **ETAG[200]["headers"],
                "Location": {"description": "Of the product.", "schema": {"type": "string"}},
            },
        },
        **documented("invalid-request", "conflict", "internal", "history-unavailable"),
    },
)
async def create_product(
    new: schemas.NewProduct,
    request: Request,
    response: Response,
    products: ProductsDep,
    settings: SettingsDep,
    caller: MayTeach,
) -> schemas.Product:
    """Create a product without images. A category that has versions can become a product, too."""
    caller.require_category(new.name)
    async with audited(request, "product.create", new.name, new.model_dump(include={"kinds", "takeover"})):
        row = await run_in_threadpool(products.create, new)
    response.headers["Location"] = f"/v1/products/{row.name}"
    response.headers["ETag"] = etag(row.revision)
    return await run_in_threadpool(describe_product, products, settings.models, row)


@router.get("/{category}", responses={**ETAG, **documented(*PROBLEMS)})
def get_product(
    category: ProductInPath,
    response: Response,
    products: ProductsDep,
    settings: SettingsDep,
    teacher: TeacherDep,
    _: MaySeeHistory,
) -> schemas.Product:
    """Return a product with the state of its dataset, its jobs, and what comes next."""
    row = products.get(category)
    response.headers["ETag"] = etag(row.revision)
    described = describe_product(products, settings.models, row)
    return described.model_copy(update={"teaching": teacher.describe(row)})


@router.patch("/{category}", responses={**ETAG, **documented(*_MATCHED)})
async def change_product(
    category: ProductInPath,
    change: schemas.ProductChange,
    request: Request,
    response: Response,
    products: ProductsDep,
    settings: SettingsDep,
    _: MayTeach,
    if_match: IfMatch = None,
) -> schemas.Product:
    """Change the kinds of defect, or the way in which new versions take over."""
    known = change.model_dump(exclude_none=True)
    async with audited(request, "product.change", category, known) as detail:

        def check(before: Row[Any]) -> None:
            require_match(if_match, before.revision)
            detail["from"] = {"kinds": json.loads(before.kinds), "takeover": before.takeover}

        row = await run_in_threadpool(products.change, category, change, check)
    response.headers["ETag"] = etag(row.revision)
    return await run_in_threadpool(describe_product, products, settings.models, row)


@router.delete("/{category}", status_code=204, responses=documented(*_MATCHED))
async def delete_product(
    category: ProductInPath,
    request: Request,
    products: ProductsDep,
    settings: SettingsDep,
    _: MayTeach,
    if_match: IfMatch = None,
    reason: OptionalReason = None,
) -> None:
    """Delete a product with all its images; its versions and inspections stay.

    A product without versions needs neither If-Match nor a reason.
    """
    async with audited(request, "product.delete", category, {"reason": reason}) as detail:

        def check(before: Row[Any]) -> None:
            if if_match is not None or has_versions(settings.models, category):
                require_match(if_match, before.revision)
            if reason is None and has_versions(settings.models, category):
                raise Problem("conflict", "The product has versions. Name a `reason` to delete its images.")

        detail["images"] = await run_in_threadpool(products.delete, category, check)


def has_versions(models: Path, category: str) -> bool:
    """Tell if a category has a published version."""
    return bool(models_folder.versions(models, category))


def describe_product(products: Products, models: Path, row: Row[Any]) -> schemas.Product:
    """Describe a product."""
    [described] = describe_products(products, models, [row])
    return described


def describe_products(products: Products, models: Path, rows: Sequence[Row[Any]]) -> list[schemas.Product]:
    """Describe products."""
    counts = products.counts([row.name for row in rows])
    return [
        schemas.Product(
            name=row.name,
            created=clock.iso(row.created_ms),
            kinds=json.loads(row.kinds),
            takeover=row.takeover,
            revision=row.revision,
            data_revision=row.data_revision,
            checked=None if row.checked_ms is None else clock.iso(row.checked_ms),
            images=counts[row.name],
            versions=models_folder.versions(models, row.name),
            active=models_folder.active_version(models, row.name),
        )
        for row in rows
    ]


def match_if_given(if_match: str | None) -> Callable[[Row[Any]], None]:
    """Make a check of a row's revision, for changes where If-Match is optional."""

    def check(before: Row[Any]) -> None:
        if if_match is not None:
            require_match(if_match, before.revision)

    return check
