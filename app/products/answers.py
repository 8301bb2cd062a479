"""Products, their images, and what became of an upload, as answers."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastapi import Request
from sqlalchemy import Row

from app.database import clock
from app.errors import problem_responses
from app.products.intake import Outcome
from app.products.products import Products
from app.schemas import products as schemas
from flows.fastflow.bundle import models_folder


def describe_products(products: Products, models: Path, rows: Sequence[Row[Any]]) -> list[schemas.Product]:
    counts = products.counts([row.name for row in rows])
    return [
        schemas.Product.model_validate(
            row._asdict()
            | {
                "created": clock.iso(row.created_ms),
                "kinds": json.loads(row.kinds),
                "checked": None if row.checked_ms is None else clock.iso(row.checked_ms),
                "images": counts[row.name],
                "versions": models_folder.versions(models, row.name),
                "active": models_folder.active_version(models, row.name),
            }
        )
        for row in rows
    ]


def describe_image(row: Row[Any]) -> schemas.ProductImage:
    base = f"/v1/products/{row.product}/images/{row.sha256}"
    links = schemas.ProductImageLinks(self=base, image=f"{base}/source", thumbnail=f"{base}/thumbnail")
    findings = json.loads(row.findings or "[]")
    values = row._asdict() | {"findings": findings, "added": clock.iso(row.added_ms), "links": links}
    return schemas.ProductImage.model_validate(values)


def count_outcomes(outcomes: Sequence[Outcome]) -> dict[schemas.ItemStatus, int]:
    """Count images by what became of them."""
    return dict(Counter(outcome.status for outcome in outcomes))


def describe_outcomes(
    request: Request, products: Products, models: Path, category: str, outcomes: Sequence[Outcome]
) -> schemas.StoredImages:
    """Describe what became of each image, and the product afterwards."""
    items = [
        schemas.StoredItem(
            index=index,
            filename=outcome.filename,
            status=outcome.status,
            image=None if outcome.image is None else describe_image(outcome.image),
            problem=None
            if (problem := outcome.problem) is None
            else problem_responses.problem_details(request, problem.name, problem.detail),
        )
        for index, outcome in enumerate(outcomes)
    ]
    [product] = describe_products(products, models, [products.get(category)])
    return schemas.StoredImages(items=items, counts=count_outcomes(outcomes), product=product)
