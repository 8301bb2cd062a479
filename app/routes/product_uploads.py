"""Images that come into a dataset: by upload, or from inspections and folders of the server."""

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Query, Request
from starlette.concurrency import run_in_threadpool

from app.auth.audit import audited
from app.auth.permissions import MayTeach
from app.dependencies import (
    AdmissionDep,
    HistoryDep,
    PipelineDep,
    ProductsDep,
    SettingsDep,
    require_not_draining,
)
from app.http import uploads
from app.products import imports
from app.products.answers import count_outcomes, describe_outcomes
from app.products.intake import Candidate, store_images
from app.products.labels import require_kind
from app.routes.openapi import documented
from app.routes.openapi_bodies import DATASET_EXTRA
from app.routes.parameters import text_query
from app.routes.products import CHANGING, OfKind, ProductInPath
from app.scheduling.admission import DATASETS
from app.scheduling.disconnect import cancel_on_disconnect
from app.schemas import products as schemas
from app.schemas.history import Verdict

router = APIRouter(prefix="/v1/products/{category}", tags=["products"])

MAX_FILES: Final = 100  # in one upload; each waits in memory for its turn


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
            upload.require_no_texts()
            candidates = [
                Candidate(file.name, file.data, label, kind, source, part_id or None) for file in upload.files
            ]
            del upload
            work = store_images(candidates, products.images, pipeline, category)
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

    Each has its own status, as in an upload. Kinds of defect that folders are named after, or that reviews
    name, are added to the product.
    """
    known = new.model_dump(mode="json", exclude_none=True, by_alias=True)
    async with audited(request, "product.import", category, known) as detail:
        require_kind(await run_in_threadpool(products.get, category), new.label or "good", new.kind)
        if new.folder is not None:
            page = await run_in_threadpool(imports.find_in_folder, settings, new, new.folder)
        else:
            await history.wait_until_filed()
            ids = new.inspections or []
            page = await run_in_threadpool(imports.find_inspections, history, caller, new, ids)
        await run_in_threadpool(products.add_kinds, category, page.kinds())
        work = store_images(page.candidates, products.images, pipeline, category)
        outcomes = await cancel_on_disconnect(request, work)
        detail["images"] = count_outcomes(outcomes)
    stored = await run_in_threadpool(
        describe_outcomes, request, products, settings.models, category, outcomes
    )
    return schemas.ImportedImages(**dict(stored), next_cursor=page.next_cursor)
