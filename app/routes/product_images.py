"""Images of a product's dataset: search, labels, files."""

from contextlib import ExitStack
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from fastapi import Path as PathParameter
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.auth.audit import audited
from app.auth.permissions import MaySeeHistory, MayTeach
from app.dependencies import HistoryDep, PipelineDep, ProductsDep
from app.errors.problems import Problem, ProblemName
from app.history.inspection_files import FORMATS
from app.http import immutable
from app.http.responses import AccountedResponse
from app.products.answers import describe_image
from app.products.intake import draw_thumbnail
from app.products.rows import ImageFilter, file_name
from app.routes.openapi import documented, documented_file
from app.routes.products import CHANGING, PROBLEMS, OfKind, ProductInPath
from app.schemas import products as schemas
from app.schemas.history import Verdict

router = APIRouter(prefix="/v1/products/{category}", tags=["products"])

ImageInPath = Annotated[str, PathParameter(description="SHA-256 of the image.", examples=["9f86d081" * 8])]


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
    rows, total = products.images.page(category, selected, limit + 1, None if cursor is None else int(cursor))
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
    first = [change.model_dump(exclude_unset=True) for change in changes.changes[:10]]
    known = {"images": len(changes.changes), "first": first}
    async with audited(request, "product.label", category, known):
        after, before = await run_in_threadpool(products.images.relabel, category, changes.changes)
    return schemas.ChangedImages(images=[describe_image(row) for row in after], before=before)


@router.get("/images/{image}", responses=documented(*PROBLEMS))
def get_image(
    category: ProductInPath, image: ImageInPath, products: ProductsDep, _: MaySeeHistory
) -> schemas.ProductImage:
    """Return an image's label and properties."""
    return describe_image(products.images.find(category, image))


@router.delete("/images/{image}", status_code=204, responses=documented(*PROBLEMS))
async def delete_image(
    category: ProductInPath, image: ImageInPath, request: Request, products: ProductsDep, _: MayTeach
) -> None:
    """Delete an image from a dataset. To be able to undo it, exclude the image instead."""
    async with audited(request, "product.delete-image", category, {"image": image}):
        await run_in_threadpool(products.images.delete, category, image)


_FILE_PROBLEMS: Final[tuple[ProblemName, ...]] = (*PROBLEMS, "files-lost", "queue-full")
_THUMBNAIL: Final = documented_file(["image/jpeg"], *_FILE_PROBLEMS)
_SOURCE: Final = documented_file((one.media_type for one in FORMATS), *_FILE_PROBLEMS)


@router.get("/images/{image}/thumbnail", response_class=Response, responses=_THUMBNAIL)
async def get_thumbnail(
    category: ProductInPath,
    image: ImageInPath,
    request: Request,
    products: ProductsDep,
    pipeline: PipelineDep,
    _: MaySeeHistory,
) -> Response:
    """Return a JPEG of an image, of at most 256 pixels a side."""
    row = await run_in_threadpool(products.images.find, category, image)
    tag = f"{image}.thumbnail"
    if (known := immutable.not_modified(request, tag)) is not None:
        return known
    content = await draw_thumbnail(products.images, pipeline, row)
    if content is None:
        raise _file_lost()
    return Response(content, headers=immutable.headers(tag), media_type="image/jpeg")


@router.get("/images/{image}/source", response_class=Response, responses=_SOURCE)
async def get_source(
    category: ProductInPath,
    image: ImageInPath,
    request: Request,
    products: ProductsDep,
    history: HistoryDep,
    caller: MaySeeHistory,
) -> Response:
    """Return an uploaded image, byte for byte."""
    row = await run_in_threadpool(products.images.find, category, image)
    if (known := immutable.not_modified(request, image)) is not None:
        return known
    with ExitStack() as stack:
        room = stack.enter_context(history.drawer.unsent.reserve(caller.key_id or "source"))
        content = await run_in_threadpool(products.images.files.read, category, file_name(row))
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
