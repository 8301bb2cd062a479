"""Readers of request bodies, with limits on size, memory and time."""

import re
from collections.abc import AsyncIterator
from typing import Final

from python_multipart.multipart import parse_options_header
from starlette.requests import Request
from starlette.types import Message, Receive, Scope

from app.errors.problems import Problem
from app.http.forms import FILE, MultipartForm, Upload, UploadedFile, too_large
from app.http.transfer_rate import MIN_RATE, MinTransferRate
from app.scheduling.admission import Reservation
from app.settings import Settings

# Bytes that multipart/form-data adds to the file: boundaries, part headers, four texts of four-byte
# characters.
_FORM_OVERHEAD: Final = 16 * 1024
# Limit on bodies that are not uploads. Most JSON bodies have a few hundred bytes; polygons of a region have
# the most.
MAX_SMALL: Final = 256 * 1024


async def read_upload(
    request: Request, reservation: Reservation, settings: Settings, max_files: int | None = None
) -> Upload:
    """Read the body of a predict request: one image, or a form of several.

    The content type only selects between the two. The image format follows from the content, later.

    Args:
        request: its body has not been read.
        reservation: counts the bytes as they arrive.
        settings: the limits on the bytes of an image and of a form.
        max_files: the limit on the number of images; None for a single image, which may be the body itself.

    Raises:
        Problem: unsupported-media-type, invalid-request, upload-stalled, too-large or queue-full.
        ClientDisconnect: the client left before the end of the body.
    """
    header = request.headers.get("content-type", "application/octet-stream")
    media_type, options = parse_options_header(header)
    media_type = media_type.lower()
    if media_type == b"multipart/form-data":
        form = MultipartForm(options.get(b"boundary", b""), settings.max_bytes, max_files or 1)
        limit, problem = settings.max_bytes + _FORM_OVERHEAD, too_large(settings.max_bytes)
        if max_files is not None:
            limit = settings.max_request_bytes
            problem = Problem("too-large", f"The request has more than {limit} bytes, the limit.")
        async for chunk in read_chunks(request, limit, settings, problem, reservation):
            form.feed(chunk)
        return form.finish()
    is_image = media_type.startswith(b"image/") or media_type == b"application/octet-stream"
    if is_image and max_files is None:
        limit = settings.max_bytes
        chunks = read_chunks(request, limit, settings, too_large(limit), reservation)
        return Upload([UploadedFile(None, b"".join([chunk async for chunk in chunks]))])
    hint = (
        ", or the image itself as image/* or application/octet-stream" if max_files is None else " for each"
    )
    raise Problem(
        "unsupported-media-type",
        f"The content type is {header[:100]!r}; send multipart/form-data with a part named {FILE!r}{hint}.",
    )


async def buffer_body(scope: Scope, receive: Receive, settings: Settings) -> Receive:
    """Read a small body whole. Return a `receive` that replays it to the application.

    Raises:
        Problem: too-large or upload-stalled.
        ClientDisconnect: the client left before the end.
    """
    problem = Problem("too-large", f"The body has more than {MAX_SMALL} bytes, the limit of this route.")
    body = [chunk async for chunk in read_chunks(Request(scope, receive), MAX_SMALL, settings, problem)]
    messages: list[Message] = [{"type": "http.request", "body": b"".join(body), "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


def declared_size(request: Request) -> int:
    """Return the value of Content-Length; 0 if it is missing or no number."""
    declared = request.headers.get("content-length", "")
    return int(declared[:18]) if re.fullmatch("[0-9]+", declared) else 0  # 18 digits exceed any limit


async def read_chunks(
    request: Request,
    limit: int,
    settings: Settings,
    too_large_problem: Problem,
    reservation: Reservation | None = None,
) -> AsyncIterator[bytes]:
    """Yield the body's chunks as they arrive, up to the limit, whatever Content-Length says.

    Args:
        request: its body has not been read.
        limit: on the bytes of the body.
        settings: `upload_idle_seconds` limits how long a client may be behind MIN_RATE.
        too_large_problem: raised for a larger body.
        reservation: counts the bytes as they arrive.

    Raises:
        Problem: `too_large_problem`, upload-stalled or queue-full.
        ClientDisconnect: the client left before the end of the body.
    """
    if declared_size(request) > limit:
        raise too_large_problem
    received = 0
    stream = request.stream()
    transfer_rate = MinTransferRate(settings.upload_idle_seconds)
    while True:
        try:
            chunk = await transfer_rate.wait(anext(stream, None))
        except TimeoutError:
            raise Problem(
                "upload-stalled",
                f"The upload stalled: nothing came for {settings.upload_idle_seconds:g} s, the limit, or "
                f"less than {MIN_RATE // 1024} KiB a second for longer. Send it again.",
            ) from None
        if chunk is None:
            return
        transfer_rate.credit(len(chunk))
        received += len(chunk)
        if received > limit:
            raise too_large_problem
        if reservation is not None:
            reservation.hold(len(chunk))
        yield chunk
