"""Products: categories that can be taught, with their datasets."""

import json
from typing import Annotated, Any, Final

from fastapi import APIRouter, Request, Response
from fastapi import Path as PathParameter
from sqlalchemy import Row
from starlette.concurrency import run_in_threadpool

from app.auth.audit import audited
from app.auth.permissions import MaySeeHistory, MayTeach
from app.dependencies import JobsDep, ProductsDep, SettingsDep, TeacherDep
from app.errors.problems import Problem, ProblemName
from app.http.preconditions import ETAG, IfMatch, etag, require_match
from app.products.answers import describe_products
from app.routes.openapi import LOCATION, documented
from app.routes.parameters import OptionalReason, text_query
from app.schemas import products as schemas
from flows.fastflow.bundle import models_folder

router = APIRouter(prefix="/v1/products", tags=["products"])

# Without a pattern: an impossible name is an unknown product.
ProductInPath = Annotated[str, PathParameter(description="A product of /v1/products.", examples=["bottle"])]
PROBLEMS: Final[tuple[ProblemName, ...]] = ("unknown-product", "internal", "history-unavailable")
CHANGING: Final[tuple[ProblemName, ...]] = (*PROBLEMS, "invalid-request", "conflict")
OfKind = Annotated[str | None, text_query("Kind of defect.", "scratch")]


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
        201: {"description": "The product exists.", "headers": {**ETAG[200]["headers"], **LOCATION}},
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
    [described] = await run_in_threadpool(describe_products, products, settings.models, [row])
    return described


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
    [described] = describe_products(products, settings.models, [row])
    found = {"teaching": teacher.describe(row), "findings": products.images.count_findings(category)}
    return described.model_copy(update=found)


@router.patch(
    "/{category}", responses={**ETAG, **documented(*CHANGING, "precondition-failed", "precondition-required")}
)
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
    [described] = await run_in_threadpool(describe_products, products, settings.models, [row])
    return described


@router.delete("/{category}", status_code=204, responses=documented(*CHANGING, "precondition-failed"))
async def delete_product(
    category: ProductInPath,
    request: Request,
    products: ProductsDep,
    settings: SettingsDep,
    jobs: JobsDep,
    _: MayTeach,
    if_match: IfMatch = None,
    reason: OptionalReason = None,
) -> None:
    """Delete a product with all its images, and cancel jobs that read them; versions and inspections stay.

    A product with versions needs a reason.
    """
    async with audited(request, "product.delete", category, {"reason": reason}) as detail:

        def check(before: Row[Any]) -> None:
            if if_match is not None:
                require_match(if_match, before.revision)
            if reason is None and models_folder.versions(settings.models, category):
                raise Problem("conflict", "The product has versions. Name a `reason` to delete its images.")

        detail["images"] = await run_in_threadpool(products.delete, category, check)
        await jobs.cancel_reading(category)
