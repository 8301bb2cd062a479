"""One stored inspection: its answer, files and reviews."""

import json
import re
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Path, Request
from sqlalchemy import Row
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.auth.permissions import MayReview, MaySeeHistory, MaySeeResult
from app.database import clock
from app.dependencies import HistoryDep, ProductsDep
from app.errors.problems import Problem, ProblemName
from app.history import queries, reviews
from app.history.drawing import DrawingSource, View
from app.history.inspection_files import FORMATS, detect_format
from app.history.orphans import explain_missing_files, files_removed
from app.http import immutable
from app.http.responses import AccountedResponse
from app.inspection.answer import read_answer
from app.products.labels import require_kind
from app.products.products import Products
from app.routes.openapi import documented, documented_file
from app.scheduling.disconnect import cancel_on_disconnect
from app.schemas.history import KeptInspection
from app.schemas.review import NewReview, Review, ReviewList

router = APIRouter(prefix="/v1/inspections/{inspection_id}", tags=["history"])

_NPY: Final = "application/x-npy"
Kind = View | Literal["source", "map"]
ID_PATTERN: Final = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"


async def _find_inspection(
    inspection_id: Annotated[
        str,
        Path(description="`inspection_id` of an answer.", examples=["0193a6b2-7c1e-7d4f-8a53-5d1d3b7a8c11"]),
    ],
    caller: MaySeeResult,
    history: HistoryDep,
) -> Row[Any]:
    """Find an inspection, even if it was answered a moment ago."""

    def find() -> Row[Any] | None:
        with history.database.read() as connection:
            return queries.find_inspection(connection, inspection_id)

    row = None
    if re.fullmatch(ID_PATTERN, inspection_id):
        row = await run_in_threadpool(find)
        if row is None:
            await history.wait_until_filed()
            row = await run_in_threadpool(find)
    if row is None:
        raise Problem(
            "unknown-inspection",
            "No inspection has this id: it was never stored, or retention has removed it.",
        )
    caller.require_category(row.category)
    return row


# All columns of an inspection that the caller may see.
KnownInspection = Annotated[Row[Any], Depends(_find_inspection)]


@router.get(
    "",
    response_model=KeptInspection,
    responses=documented("unknown-inspection", "internal", "history-unavailable"),
)
async def get_inspection(row: KnownInspection) -> Response:
    """Return an inspection as it was answered, with its reviews."""
    answer = read_answer(row.answer)
    answer |= {
        "created": clock.iso(row.created_ms),
        "key_id": row.key_id,
        "request_id": row.request_id,
        "has_pictures": row.has_pictures,
        "review": {"revision": row.review_revision, "verdict": row.verdict, "kind": row.kind},
    }
    return Response(json.dumps(answer), media_type="application/json")


async def _file_responder(
    request: Request, row: KnownInspection, history: HistoryDep, caller: MaySeeResult
) -> Callable[..., Awaitable[Response]]:
    async def answer(kind: Kind, side: int | None = None) -> Response:
        tag = row.image_sha256 if kind == "source" else f"{row.id}.{kind}" + (f".{side}" if side else "")
        if not row.has_pictures:
            raise files_removed()
        if (known := immutable.not_modified(request, tag)) is not None:
            return known
        with ExitStack() as stack:
            room = stack.enter_context(history.drawer.unsent.reserve(caller.key_id or kind))
            media_type = "image/png" if side is None else "image/jpeg"
            if kind == "source":
                content = await run_in_threadpool(history.files.read_image, row.image_sha256)
                media_type = "" if content is None else detect_format(content).media_type
            elif kind == "map":
                content, media_type = await run_in_threadpool(history.files.read_map_file, row.id), _NPY
            else:
                drawing = history.drawer.draw(kind, DrawingSource.of(row), side, caller.key_id)
                content = await cancel_on_disconnect(request, drawing)  # frees the slot for others
            if content is None:
                raise await run_in_threadpool(explain_missing_files, history.database, row.id)
            response = Response(content, headers=immutable.headers(tag), media_type=media_type)
            stack.pop_all()  # the reservation ends after sending
        return AccountedResponse(response, room)

    return answer


# Returns a stored or drawn file; its bytes are accounted until they are sent. Raises the problems
# unknown-inspection (removed by retention), files-lost and queue-full.
AnswerFile = Annotated[Callable[..., Awaitable[Response]], Depends(_file_responder)]


_FILE_PROBLEMS: Final[tuple[ProblemName, ...]] = (
    *("unknown-inspection", "files-lost", "internal", "history-unavailable", "queue-full"),
)
_DRAWN: Final = documented_file(["image/png"], *_FILE_PROBLEMS)
_SOURCE: Final = documented_file((one.media_type for one in FORMATS), *_FILE_PROBLEMS)


@router.get("/overlay.png", response_class=Response, responses=_DRAWN)
async def get_overlay(answer: AnswerFile) -> Response:
    """Draw the uploaded image with its heatmap."""
    return await answer("overlay")


@router.get("/heatmap.png", response_class=Response, responses=_DRAWN)
async def get_heatmap(answer: AnswerFile) -> Response:
    """Draw the heatmap alone, at the size of the uploaded image."""
    return await answer("heatmap")


@router.get("/source", response_class=Response, responses=_SOURCE)
async def get_source(answer: AnswerFile) -> Response:
    """Return the uploaded image, byte for byte."""
    return await answer("source")


@router.get("/map.npy", response_class=Response, responses=documented_file([_NPY], *_FILE_PROBLEMS))
async def get_map(answer: AnswerFile) -> Response:
    """Return the anomaly map as NumPy's .npy: float16, (height, width)."""
    return await answer("map")


@router.post(
    "/reviews",
    status_code=201,
    responses=documented(
        "invalid-request", "unknown-inspection", "conflict", "internal", "history-unavailable"
    ),
)
def add_review(
    new: NewReview, caller: MayReview, row: KnownInspection, history: HistoryDep, products: ProductsDep
) -> Review:
    """Record whether a part is good. The latest review counts; earlier ones stay.

    A reviewed inspection is never deleted by retention, nor is its image. If somebody else was faster, the
    answer is 409: read the reviews before adding another.
    """
    if new.kind is not None:
        _require_kind(products, row.category, new)
    return reviews.add_review(history.database, caller, row.id, **dict(new))


def _require_kind(products: Products, category: str, new: NewReview) -> None:
    found = products.find([category])
    if not found:
        raise Problem(
            "invalid-request",
            f"Category {category!r} is no product, so it has no kinds of defect. Create the product first.",
        )
    require_kind(found[0], new.verdict, new.kind)


@router.get("/reviews", responses=documented("unknown-inspection", "internal", "history-unavailable"))
def list_reviews(_: MaySeeHistory, row: KnownInspection, history: HistoryDep) -> ReviewList:
    """List the reviews of an inspection, the oldest first."""
    return ReviewList(reviews=reviews.list_reviews(history.database, row.id))
