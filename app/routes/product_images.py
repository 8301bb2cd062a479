"""Images of a product's dataset: upload, search, labels, thumbnails."""

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi import Path as PathParameter
from sqlalchemy import Row
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.auth.audit import audited
from app.auth.permissions import MaySeeHistory, MayTeach
from app.database import clock
from app.dependencies import (
    AdmissionDep,
    HistoryDep,
    PipelineDep,
    ProductsDep,
    SettingsDep,
    require_not_draining,
)
from app.errors import problem_responses
from app.errors.problems import Problem
from app.history.inspection_files import FORMATS
from app.http import immutable, uploads
from app.http.preconditions import ETAG, IfMatch, etag
from app.http.responses import AccountedResponse
from app.products import imports
from app.products.intake import Candidate, Outcome, draw_thumbnail, store_images
from app.products.products import ImageFilter, Products, file_name, require_kind
from app.routes.openapi import documented
from app.routes.openapi_bodies import DATASET_EXTRA
from app.routes.parameters import text_query
from app.routes.products import CHANGING, PROBLEMS, ProductInPath, describe_product, match_if_given
from app.scheduling.admission import DATASETS
from app.scheduling.disconnect import cancel_on_disconnect
from app.schemas import products as schemas
from app.schemas.history import Verdict

router = APIRouter(prefix="/v1/products/{category}", tags=["products"])

MAX_FILES: Final = 100  # in one upload; each waits in memory for its turn
_MAX_MARKED: Final = 500  # images in the answer of the check
ImageInPath = Annotated[str, PathParameter(description="SHA-256 of the image.", examples=["9f86d081" * 8])]
OfKind = Annotated[str | None, text_query("Kind of defect.", "scratch")]


@router.post(
    "/images",
    openapi_extra=DATASET_EXTRA,
    dependencies=[Depends(require_not_draining)],
    responses=documented(
        *CHANGING, "upload-stalled", "too-large", "unsupported-media-type", "queue-full", "draining"
    ),
)
async def add_images(
    category: ProductInPath,
    request: Request,
    settings: SettingsDep,
    admission: AdmissionDep,
    pipeline: PipelineDep,
    products: ProductsDep,
    _: MayTeach,
    label: Annotated[Verdict, Query(description="Label of all images of the request.")] = "good",
    kind: OfKind = None,
    part_id: Annotated[
        str | None, text_query("Part that all images of the request show.", "P-000123")
    ] = None,
    source: Annotated[
        Literal["upload", "camera"], Query(description="Where the images come from.")
    ] = "upload",
) -> schemas.StoredImages:
    """Add the images of a form to a dataset, each with its own status.

    One that cannot be decoded, is too small or too large, or is in the dataset already does not stop the
    others. The rules for images are those of predict. The answer comes after all are stored; send some ten
    images a request to see progress.
    """
    known = {"label": label, "kind": kind}
    async with audited(request, "product.add-images", category, known) as detail:
        require_kind(await run_in_threadpool(products.get, category), label, kind)
        with admission.reserve(DATASETS) as room:
            upload = await uploads.read_upload(request, room, settings, MAX_FILES)
            if upload.texts:
                raise Problem(
                    "invalid-request", f"Unknown form field {min(upload.texts)!r}; send it in the query."
                )
            candidates = [
                Candidate(file.name, file.data, label, kind, source, part_id or None) for file in upload.files
            ]
            del upload
            work = store_images(candidates, products, pipeline, category)
            outcomes = await cancel_on_disconnect(request, work)
        detail["images"] = count_outcomes(outcomes)
    return await run_in_threadpool(describe_outcomes, request, products, settings.models, category, outcomes)


@router.post(
    "/images:import",
    dependencies=[Depends(require_not_draining)],
    responses=documented(*CHANGING, "draining"),
)
async def import_images(
    category: ProductInPath,
    new: schemas.NewImport,
    request: Request,
    settings: SettingsDep,
    history: HistoryDep,
    pipeline: PipelineDep,
    products: ProductsDep,
    caller: MayTeach,
) -> schemas.ImportedImages:
    """Add images of inspections, or of a folder on the server, 100 at a time.

    Each has its own status, as in an upload. Kinds of defect that folders are named after are added to the
    product.
    """
    known = new.model_dump(mode="json", exclude_none=True, by_alias=True)
    async with audited(request, "product.import", category, known) as detail:
        require_kind(await run_in_threadpool(products.get, category), new.label or "good", new.kind)
        if new.folder is not None:
            page = await run_in_threadpool(imports.find_in_folder, settings, new, new.folder)
            await run_in_threadpool(products.add_kinds, category, page.kinds())
        else:
            await history.wait_until_filed()
            page = await run_in_threadpool(imports.find_inspections, history, caller, new, category)
        work = store_images(page.candidates, products, pipeline, category)
        outcomes = await cancel_on_disconnect(request, work)
        detail["images"] = count_outcomes(outcomes)
    stored = await run_in_threadpool(
        describe_outcomes, request, products, settings.models, category, outcomes
    )
    return schemas.ImportedImages(**dict(stored), next_cursor=page.next_cursor)


@router.get("/check", responses=documented(*PROBLEMS))
def get_check(category: ProductInPath, products: ProductsDep, _: MaySeeHistory) -> schemas.DatasetCheck:
    """Return the findings of the last data check: copies, outliers, wrong sizes and others."""
    checked_ms = products.get(category).checked_ms
    marked = products.find_marked(category)
    counts = Counter(
        kind
        for row in marked
        if not row.excluded
        for kind in {finding["kind"] for finding in json.loads(row.findings)}
    )
    return schemas.DatasetCheck(
        checked=None if checked_ms is None else clock.iso(checked_ms),
        counts=counts,
        images=[describe_image(row) for row in marked[:_MAX_MARKED]],
    )


@router.get("/images", responses=documented(*PROBLEMS, "invalid-request"))
def list_images(
    category: ProductInPath,
    products: ProductsDep,
    _: MaySeeHistory,
    label: Annotated[Verdict | None, Query(description="Only this label.")] = None,
    kind: OfKind = None,
    excluded: Annotated[bool | None, Query(description="Only, or only not, excluded images.")] = None,
    finding: Annotated[
        str | None,
        Query(
            description="Only with this finding of the data check; `any` for all.",
            pattern="^[a-z_]{1,32}$",
            examples=["outlier"],
        ),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=500, description="Images per page.")] = 60,
    cursor: Annotated[
        str | None, Query(description="`next_cursor` of the previous page.", pattern="^[0-9]{1,18}$")
    ] = None,
) -> schemas.ProductImagePage:
    """List the images of a dataset, the latest first."""
    selected = ImageFilter(label, kind, excluded, finding)
    rows, total = products.find_page(category, selected, limit + 1, None if cursor is None else int(cursor))
    shown = rows[:limit]
    return schemas.ProductImagePage(
        images=[describe_image(row) for row in shown],
        next_cursor=str(shown[-1].number) if len(rows) > limit else None,
        total=total,
    )


@router.patch("/images", responses=documented(*CHANGING))
async def change_images(
    category: ProductInPath,
    changes: schemas.LabelChanges,
    request: Request,
    products: ProductsDep,
    _: MayTeach,
) -> schemas.ChangedImages:
    """Change labels of several images, all or none.

    The answer has the labels before: the same request with them as `changes` undoes the change.
    """
    async with audited(request, "product.label", category, {"images": len(changes.changes)}):
        after, before = await run_in_threadpool(products.change_images, category, changes.changes)
    return schemas.ChangedImages(images=[describe_image(row) for row in after], before=before)


@router.get("/images/{image}", responses={**ETAG, **documented(*PROBLEMS)})
def get_image(
    category: ProductInPath, image: ImageInPath, response: Response, products: ProductsDep, _: MaySeeHistory
) -> schemas.ProductImage:
    """Return an image's label and properties."""
    row = products.find_image(category, image)
    response.headers["ETag"] = etag(row.revision)
    return describe_image(row)


@router.patch("/images/{image}", responses={**ETAG, **documented(*CHANGING, "precondition-failed")})
async def change_image(
    category: ProductInPath,
    image: ImageInPath,
    change: schemas.LabelChange,
    request: Request,
    response: Response,
    products: ProductsDep,
    _: MayTeach,
    if_match: IfMatch = None,
) -> schemas.ChangedImage:
    """Change the label of an image, or leave it out of trainings. `before` in the answer undoes it."""
    named = schemas.ImageLabel(image=image, **change.model_dump(exclude_unset=True))
    known = {"image": image, **change.model_dump(exclude_unset=True)}
    async with audited(request, "product.label", category, known):
        check = match_if_given(if_match)
        [row], [before] = await run_in_threadpool(products.change_images, category, [named], check)
    response.headers["ETag"] = etag(row.revision)
    return schemas.ChangedImage(image=describe_image(row), before=before)


@router.delete("/images/{image}", status_code=204, responses=documented(*PROBLEMS, "precondition-failed"))
async def delete_image(
    category: ProductInPath,
    image: ImageInPath,
    request: Request,
    products: ProductsDep,
    _: MayTeach,
    if_match: IfMatch = None,
) -> None:
    """Delete an image from a dataset. To be able to undo it, exclude the image instead."""
    async with audited(request, "product.delete-image", category, {"image": image}):
        await run_in_threadpool(products.delete_image, category, image, match_if_given(if_match))


def _documented_file(*media_types: str) -> dict[int | str, dict[str, Any]]:
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in media_types}
    return {
        200: {"description": "It never changes.", "content": content, "headers": dict(immutable.HEADERS)},
        304: dict(immutable.NOT_MODIFIED),
        **documented(*PROBLEMS, "files-lost", "queue-full"),
    }


@router.get("/images/{image}/thumbnail", response_class=Response, responses=_documented_file("image/jpeg"))
async def get_thumbnail(
    category: ProductInPath,
    image: ImageInPath,
    request: Request,
    products: ProductsDep,
    pipeline: PipelineDep,
    _: MaySeeHistory,
) -> Response:
    """Return a JPEG of an image, of at most 256 pixels a side."""
    row = await run_in_threadpool(products.find_image, category, image)
    tag = f"{image}.thumbnail"
    if (known := immutable.not_modified(request, tag)) is not None:
        return known
    content = await draw_thumbnail(products, pipeline, row)
    if content is None:
        raise _file_lost()
    return Response(content, headers=immutable.headers(tag), media_type="image/jpeg")


@router.get(
    "/images/{image}/source",
    response_class=Response,
    responses=_documented_file(*(one.media_type for one in FORMATS)),
)
async def get_source(
    category: ProductInPath,
    image: ImageInPath,
    request: Request,
    products: ProductsDep,
    history: HistoryDep,
    caller: MaySeeHistory,
) -> Response:
    """Return an uploaded image, byte for byte."""
    row = await run_in_threadpool(products.find_image, category, image)
    if (known := immutable.not_modified(request, image)) is not None:
        return known
    with ExitStack() as stack:
        room = stack.enter_context(history.drawer.unsent.reserve(caller.key_id or "source"))
        content = await run_in_threadpool(products.files.read, category, file_name(row))
        if content is None:
            raise _file_lost()
        media_type = next(one.media_type for one in FORMATS if one.suffix == row.suffix)
        response = Response(content, headers=immutable.headers(image), media_type=media_type)
        stack.pop_all()  # the reservation ends after sending
    return AccountedResponse(response, room)


def _file_lost() -> Problem:
    return Problem(
        "files-lost",
        "The image is missing or damaged on the server's disk. Asking again does not help: delete it and "
        "add it again, or restore a backup.",
    )


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
    product = describe_product(products, models, products.get(category))
    return schemas.StoredImages(items=items, counts=count_outcomes(outcomes), product=product)


def describe_image(row: Row[Any]) -> schemas.ProductImage:
    """Describe an image of a dataset."""
    base = f"/v1/products/{row.product}/images/{row.sha256}"
    return schemas.ProductImage(
        sha256=row.sha256,
        name=row.name,
        width=row.width,
        height=row.height,
        bytes=row.bytes,
        label=row.label,
        kind=row.kind,
        excluded=row.excluded,
        source=row.source,
        inspection_id=row.inspection_id,
        part_id=row.part_id,
        findings=json.loads(row.findings or "[]"),
        added=clock.iso(row.added_ms),
        revision=row.revision,
        links=schemas.ProductImageLinks(self=base, image=f"{base}/source", thumbnail=f"{base}/thumbnail"),
    )
