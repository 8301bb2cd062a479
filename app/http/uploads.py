"""Reading bodies of requests: counted as they stream in, never beyond the limit, never for ever."""

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

# What multipart/form-data may add to the file: boundaries, part headers, four texts of four-byte
# characters.
_FORM_OVERHEAD: Final = 16 * 1024
# Of bodies that are no uploads. JSON of ours is a few hundred bytes; the polygons of a region, on lines of
# their own, are the most.
MAX_SMALL: Final = 256 * 1024


async def read_upload(
    request: Request, room: Reservation, settings: Settings, max_files: int | None = None
) -> Upload:
    """Read the body of a predict request: one image, or a form of several.

    The content type decides between the two forms of body and nothing else; what image it is, the
    content decides later.

    Args:
        request: its body has not been read.
        room: counts the bytes as they come.
        settings: the limits on the bytes of an image and of a form of several.
        max_files: the limit on the number of images; None where one is wanted, which may be the body itself.

    Raises:
        Problem: unsupported-media-type, invalid-request, upload-stalled, too-large or queue-full.
        ClientDisconnect: the client left before the end of the body.
    """
    header = request.headers.get("content-type", "application/octet-stream")
    media_type, options = parse_options_header(header)
    media_type = media_type.lower()
    if media_type == b"multipart/form-data":
        form = MultipartForm(options.get(b"boundary", b""), settings.max_bytes, max_files or 1)
        limit, beyond = settings.max_bytes + _FORM_OVERHEAD, too_large(settings.max_bytes)
        if max_files is not None:
            limit = settings.max_request_bytes
            beyond = Problem("too-large", f"The request has more than {limit} bytes, the limit.")
        async for chunk in read_chunks(request, limit, settings, beyond, room):
            form.feed(chunk)
        return form.finish()
    is_image = media_type.startswith(b"image/") or media_type == b"application/octet-stream"
    if is_image and max_files is None:
        limit = settings.max_bytes
        body = [chunk async for chunk in read_chunks(request, limit, settings, too_large(limit), room)]
        return Upload([UploadedFile(None, b"".join(body))])
    way = ", or the image itself as image/* or application/octet-stream" if max_files is None else " for each"
    raise Problem(
        "unsupported-media-type",
        f"The content type is {header[:100]!r}; send multipart/form-data with a part named {FILE!r}{way}.",
    )


async def buffer_body(scope: Scope, receive: Receive, settings: Settings) -> Receive:
    """Read a body that is no upload, and give what the application is to receive in its place.

    Raises:
        Problem: too-large or upload-stalled.
        ClientDisconnect: the client has left before the end.
    """
    beyond = Problem("too-large", f"The body has more than {MAX_SMALL} bytes, the limit of this route.")
    body = [chunk async for chunk in read_chunks(Request(scope, receive), MAX_SMALL, settings, beyond)]
    messages: list[Message] = [{"type": "http.request", "body": b"".join(body), "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


def declared_size(request: Request) -> int:
    """Bytes that Content-Length promises; 0 where it says nothing, or no number."""
    declared = request.headers.get("content-length", "")
    return int(declared[:18]) if re.fullmatch("[0-9]+", declared) else 0  # more digits are no more believable


async def read_chunks(
    request: Request, limit: int, settings: Settings, beyond: Problem, room: Reservation | None = None
) -> AsyncIterator[bytes]:
    """The body's chunks while they come and their sum is within the limit, whatever Content-Length says.

    Args:
        request: its body has not been read.
        limit: on the bytes of the body.
        settings: how long a client may send nothing, or be behind MIN_RATE.
        beyond: the problem of a body that is larger.
        room: counts the bytes as they come.

    Raises:
        Problem: `beyond`, upload-stalled or queue-full.
        ClientDisconnect: the client left before the end of the body.
    """
    if declared_size(request) > limit:
        raise beyond
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
                f"for longer less than {MIN_RATE // 1024} KiB a second. Send it again.",
            ) from None
        if chunk is None:
            return
        transfer_rate.credit(len(chunk))
        received += len(chunk)
        if received > limit:
            raise beyond
        if room is not None:
            room.hold(len(chunk))
        yield chunk
