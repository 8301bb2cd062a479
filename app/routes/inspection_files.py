"""What an inspection's decision can be seen by: the picture, the heatmap, the overlay, the map."""

import errno
import hashlib
import logging
import os
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

from fastapi import APIRouter, Request
from sqlalchemy import Row
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app import guard, immutable
from app.access import Caller, MaySeeResult
from app.dependencies import HistoryPart
from app.history.drawing import Source
from app.history.history import History
from app.history.losses import gone, lost
from app.history.pictures import FORMATS, format_of, read_map
from app.openapi import documented
from app.problems import Problem, ProblemName
from app.routes.known_inspection import KnownInspection
from app.scheduling.concurrency_limit import ConcurrencyLimit
from app.scheduling.disconnect import cancel_on_disconnect
from app.sending import Accounted, FewAtATime
from flows.fastflow.heatmap import ColourScale

logger = logging.getLogger("flowgauge.history")

router = APIRouter(prefix="/v1/inspections/{inspection_id}", tags=["history"])

_PIECE_BYTES: Final = 64 * 1024


def _documented(*media_types: str) -> dict[int | str, dict[str, Any]]:
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in media_types}
    names: list[ProblemName] = ["unknown-inspection", "files-lost", "internal", "history-unavailable"]
    problems = documented(*names, "queue-full")
    return {
        200: {"description": "It never changes.", "content": content, "headers": dict(immutable.HEADERS)},
        304: dict(immutable.NOT_MODIFIED),
        **problems,
    }


_DRAWN: Final = _documented("image/png")


@router.get("/overlay.png", response_class=Response, responses=_DRAWN)
async def get_overlay(
    request: Request, row: KnownInspection, history: HistoryPart, caller: MaySeeResult
) -> Response:
    """Draw the uploaded image with its heatmap over it."""
    return await _drawn(request, caller, row, history, "overlay")


@router.get("/heatmap.png", response_class=Response, responses=_DRAWN)
async def get_heatmap(
    request: Request, row: KnownInspection, history: HistoryPart, caller: MaySeeResult
) -> Response:
    """Draw the map in colours, at the size of the uploaded image."""
    return await _drawn(request, caller, row, history, "heatmap")


@router.get(
    "/source",
    response_class=Response,
    responses=_documented(*(one.media_type for one in FORMATS)),
)
def get_source(
    request: Request, row: KnownInspection, history: HistoryPart, caller: MaySeeResult
) -> Response:
    """Give the uploaded image, byte for byte."""
    sha256 = row.image_sha256
    return _kept(request, caller, row, history, history.pictures.picture_path(sha256), sha256)


@router.get("/map.npy", response_class=Response, responses=_documented("application/x-npy"))
def get_map(request: Request, row: KnownInspection, history: HistoryPart, caller: MaySeeResult) -> Response:
    """Give the anomaly map of the whole upload as NumPy's .npy: float16, (height, width) as computed."""
    return _kept(request, caller, row, history, history.pictures.map_path(row.id), None)


async def _drawn(
    request: Request,
    caller: Caller,
    row: Row[Any],
    history: History,
    kind: Literal["overlay", "heatmap"],
) -> Response:
    tag = f"{row.id}.{kind}"
    if not row.has_pictures:
        raise gone()
    if (known := immutable.not_modified(request, tag)) is not None:
        return known
    scale = ColourScale(row.map_low, row.map_middle)
    with ExitStack() as stack:
        room = stack.enter_context(history.drawer.unsent.reserve(caller.key_id or kind))
        drawing = history.drawer.draw(kind, Source.of(row), scale, caller.key_id)
        png = await cancel_on_disconnect(request, drawing)  # whoever leaves makes room for the others
        if png is None:
            raise await run_in_threadpool(lost, history.database, row.id)
        response = Response(png, headers=immutable.headers(tag), media_type="image/png")
        stack.pop_all()  # sending it gives the room back
    return Accounted(response, room)


def _kept(
    request: Request, caller: Caller, row: Row[Any], history: History, path: Path, sha256: str | None
) -> Response:
    """A file as it is kept: a picture, of which the sha256 is known, or a map, of which the size is.

    Of a map no sum is kept, but what it holds tells whether it is one still.
    """
    tag = sha256 or f"{row.id}.map"
    if not row.has_pictures:
        raise gone()
    if (known := immutable.not_modified(request, tag)) is not None:
        return known
    # Before the whole file is read, to be compared with its sha256.
    history.downloads.require_free(caller.key_id)
    size = row.map_bytes if sha256 is None else row.image_bytes
    file = _open(path, size, sha256)
    if file is None or (sha256 is None and not _is_map(file)):
        raise lost(history.database, row.id)
    kind = "application/x-npy" if sha256 is None else format_of(file.read(16)).media_type
    file.seek(0)
    headers = {**immutable.headers(tag), "Content-Length": str(size)}
    may_go_on = partial(guard.is_still_welcome, request.scope)
    return _Download(
        history.downloads, caller.key_id, file, may_go_on=may_go_on, headers=headers, media_type=kind
    )


class _Download(FewAtATime):
    """A file that is sent as long as the client takes it.

    Args:
        places: as many files as may be open at a time.
        key_id: as of `FewAtATime`.
        file: to send and close.
        options: as of `FewAtATime`.
    """

    def __init__(self, places: ConcurrencyLimit, key_id: str | None, file: BinaryIO, **options: Any) -> None:
        content = iter(partial(file.read, _PIECE_BYTES), b"")
        super().__init__(places, key_id, content, **options)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; as of `FewAtATime`."""
        with self._file:
            await super().__call__(scope, receive, send)


def _is_map(file: BinaryIO) -> bool:
    """Whether a file is a map still; one that is not is closed."""
    try:
        if read_map(file) is not None:
            return True
    except Exception as error:  # of a damaged header NumPy makes many kinds
        logger.warning("%s is no map any more: %s", file.name, error)
    file.close()
    return False


def _open(path: Path, size: int, sha256: str | None) -> BinaryIO | None:
    """Open a file to read, which then stays, should retention remove it; None if it is not as it was kept.

    Raises:
        Problem: history-unavailable, where the system has no files left.
    """
    try:
        with ExitStack() as stack:
            file = stack.enter_context(path.open("rb"))
            if os.fstat(file.fileno()).st_size != size:
                return None
            if sha256 is not None and hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                return None
            file.seek(0)
            stack.pop_all()
            return file
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            logger.warning("a file of the history cannot be opened: %s", error)
            raise Problem(
                "history-unavailable", "The server has too many files open; try again later."
            ) from error
        return None
