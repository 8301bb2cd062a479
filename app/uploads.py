"""Reading an upload, a raw body or multipart/form-data: counted as it streams in, never beyond the limit."""

import re
from collections.abc import AsyncIterator

from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from app.forms import FILE, File, Form, Upload, too_large
from app.problems import Problem
from app.scheduling.admission import Reservation
from app.transfer_rate import LEAST_RATE, MinTransferRate

# What multipart/form-data may add to the file: boundaries, part headers, four texts of four-byte
# characters.
_FORM_OVERHEAD = 16 * 1024


async def read(request: Request, room: Reservation, max_bytes: int, idle_seconds: float) -> Upload:
    """Read the body of a predict request: one image.

    The content type decides between the two forms of body and nothing else; what image it is, the
    content decides later.

    Args:
        request: its body has not been read.
        room: counts the bytes as they come.
        max_bytes: the limit on the image's bytes.
        idle_seconds: the longest that a client may send nothing.

    Raises:
        Problem: unsupported-media-type, invalid-request, upload-stalled, too-large or queue-full.
        ClientDisconnect: the client left before the end of the body.
    """
    header = request.headers.get("content-type", "application/octet-stream")
    media_type, options = parse_options_header(header)
    if media_type == b"multipart/form-data":
        form = Form(options.get(b"boundary", b""), max_bytes, max_files=None)
        limit = max_bytes + _FORM_OVERHEAD
        return await _read_form(form, _chunks(request, room, limit, idle_seconds, too_large(max_bytes)))
    if media_type.startswith(b"image/") or media_type == b"application/octet-stream":
        chunks = _chunks(request, room, max_bytes, idle_seconds, too_large(max_bytes))
        return Upload([File(None, b"".join([chunk async for chunk in chunks]))])
    raise Problem(
        "unsupported-media-type",
        f"The content type is {header[:100]!r}; send multipart/form-data with a part named {FILE!r}, or the "
        "image itself as image/* or application/octet-stream.",
    )


async def read_many(
    request: Request, room: Reservation, max_bytes: int, max_files: int, max_total: int, idle_seconds: float
) -> Upload:
    """Read the body of a predict:batch request: several images as a form.

    Args:
        request: its body has not been read.
        room: counts the bytes as they come.
        max_bytes: the limit on each image's bytes; one that is larger fails alone.
        max_files: the limit on the number of images.
        max_total: the limit on the whole body's bytes.
        idle_seconds: the longest that a client may send nothing.

    Raises:
        Problem: unsupported-media-type, invalid-request, upload-stalled, too-large or queue-full.
        ClientDisconnect: the client left before the end of the body.
    """
    header = request.headers.get("content-type", "")
    media_type, options = parse_options_header(header)
    if media_type != b"multipart/form-data":
        raise Problem(
            "unsupported-media-type",
            f"The content type is {header[:100]!r}; send multipart/form-data with a part named {FILE!r} for "
            "every image.",
        )
    form = Form(options.get(b"boundary", b""), max_bytes, max_files)
    beyond = Problem("too-large", f"The request has more than {max_total} bytes, the limit.")
    return await _read_form(form, _chunks(request, room, max_total, idle_seconds, beyond))


async def _read_form(form: Form, chunks: AsyncIterator[bytes]) -> Upload:
    async for chunk in chunks:
        form.feed(chunk)
    return form.finish()


async def _chunks(
    request: Request, room: Reservation, limit: int, idle_seconds: float, beyond: Problem
) -> AsyncIterator[bytes]:
    async for chunk in chunks(request, limit, idle_seconds, beyond):
        room.hold(len(chunk))
        yield chunk


def declared_size(request: Request) -> int:
    """Bytes that Content-Length promises; 0 where it says nothing, or no number."""
    declared = request.headers.get("content-length", "")
    return int(declared[:18]) if re.fullmatch("[0-9]+", declared) else 0  # more digits are no more believable


async def chunks(request: Request, limit: int, idle_seconds: float, beyond: Problem) -> AsyncIterator[bytes]:
    """The body's chunks while they come and their sum is within the limit, whatever Content-Length says.

    Raises:
        Problem: `beyond`, if the body has more than `limit` bytes; upload-stalled, if it stalls, or falls
            `idle_seconds` behind LEAST_RATE.
        ClientDisconnect: the client left before the end of the body.
    """
    if declared_size(request) > limit:
        raise beyond
    received = 0
    stream = request.stream()
    transfer_rate = MinTransferRate(idle_seconds)
    while True:
        try:
            chunk = await transfer_rate.wait(anext(stream, None))
        except TimeoutError:
            raise Problem(
                "upload-stalled",
                f"The upload stalled: nothing came for {idle_seconds:g} s, the limit, or for longer less "
                f"than {LEAST_RATE // 1024} KiB a second. Send it again.",
            ) from None
        if chunk is None:
            return
        transfer_rate.credit(len(chunk))
        received += len(chunk)
        if received > limit:
            raise beyond
        yield chunk
