"""Reading an upload, a raw body or multipart/form-data: counted as it streams in, never beyond the limit."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from app.admission import Reservation
from app.problems import Problem

FILE = "file"
# The names of OPC 40100-1, machine vision.
TEXT_FIELDS = ("part_id", "product_id", "recipe_id", "station")
MAX_TEXT = 256  # characters
TEXT_PATTERN = r"^[^\x00-\x1f\x7f-\x9f]*$"  # no control characters
# What multipart/form-data may add to the file: boundaries, part headers, four texts of four-byte
# characters.
_FORM_OVERHEAD = 16 * 1024


@dataclass(frozen=True)
class Upload:
    """An upload: the file's bytes, and the text fields that came with it."""

    data: bytes
    texts: dict[str, str] = field(default_factory=dict)


async def read(request: Request, room: Reservation, max_bytes: int, idle_seconds: float) -> Upload:
    """Read the body of a predict request.

    The content type decides between the two forms of body and nothing else; what image it is, the
    content decides later.

    Args:
        request: its body has not been read.
        room: counts the bytes as they come.
        max_bytes: the limit on the image's bytes.
        idle_seconds: the longest that a client may send nothing.

    Raises:
        Problem: unsupported-media-type, invalid-request, too-large or queue-full.
        ClientDisconnect: the client left before the end of the body.
    """
    header = request.headers.get("content-type", "application/octet-stream")
    media_type, options = parse_options_header(header)
    if media_type == b"multipart/form-data":
        form = _Form(options.get(b"boundary", b""), max_bytes)
        async for chunk in _chunks(request, room, max_bytes, idle_seconds, _FORM_OVERHEAD):
            form.feed(chunk)
        return form.finish()
    if media_type.startswith(b"image/") or media_type == b"application/octet-stream":
        chunks = _chunks(request, room, max_bytes, idle_seconds)
        return Upload(b"".join([chunk async for chunk in chunks]))
    raise Problem(
        "unsupported-media-type",
        f"The content type is {header[:100]!r}; send multipart/form-data with a part named {FILE!r}, or the "
        "image itself as image/* or application/octet-stream.",
    )


async def _chunks(
    request: Request, room: Reservation, max_bytes: int, idle_seconds: float, overhead: int = 0
) -> AsyncIterator[bytes]:
    """The body's chunks while they come and their sum is within the limit, whatever Content-Length says."""
    limit = max_bytes + overhead
    declared = request.headers.get("content-length", "")
    if re.fullmatch("[0-9]+", declared) and (len(declared) > 18 or int(declared) > limit):
        raise _too_large(max_bytes)
    received = 0
    stream = request.stream()
    while (chunk := await _next(stream, idle_seconds)) is not None:
        received += len(chunk)
        if received > limit:
            raise _too_large(max_bytes)
        room.hold(len(chunk))
        yield chunk


async def _next(stream: AsyncIterator[bytes], idle_seconds: float) -> bytes | None:
    """The next chunk, or None at the end. A stalled upload would keep what it holds from the others."""
    try:
        async with asyncio.timeout(idle_seconds):
            return await anext(stream, None)
    except TimeoutError:
        raise Problem(
            "invalid-request",
            f"The upload stalled: nothing came for {idle_seconds:g} s, the limit. Send the image again.",
        ) from None


def _too_large(max_bytes: int) -> Problem:
    return Problem("too-large", f"The image has more than {max_bytes} bytes, the limit.")


class _Form:
    """Collects the parts of a multipart body while it streams in."""

    def __init__(self, boundary: bytes, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._parts: dict[str, bytearray] = {}
        self._part = bytearray()
        self._limit = 0
        self._header = bytearray()
        self._value = bytearray()
        self._disposition = b""
        self._complete = False
        if not boundary:
            raise _bad_form("The content type multipart/form-data lacks its boundary parameter.")
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin_part,
                    "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._open_part,
                    "on_part_data": self._add,
                    "on_end": self._end,
                },
            )
        except FormParserError:
            raise _bad_form("The boundary parameter of multipart/form-data is too long.") from None

    def feed(self, chunk: bytes) -> None:
        """Take the next piece of the body."""
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise _bad_form("The body is no well-formed multipart/form-data.") from None

    def finish(self) -> Upload:
        """Give the upload, once the body has ended."""
        if not self._complete:
            raise _bad_form("The multipart body ends before its closing boundary.")
        if FILE not in self._parts:
            raise _bad_form(f"The multipart body has no part named {FILE!r}, which holds the image.")
        data = self._parts.pop(FILE)
        return Upload(bytes(data), {name: _text(name, value) for name, value in self._parts.items()})

    def _begin_part(self) -> None:
        self._disposition = b""

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _open_part(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        allowed = (FILE, *TEXT_FIELDS)
        if name not in allowed:
            raise _bad_form(f"The part {name[:64]!r} is unknown; parts are {', '.join(allowed)}.")
        if name in self._parts:
            raise _bad_form(f"The part {name!r} came more than once.")
        self._part = self._parts[name] = bytearray()
        self._limit = self._max_bytes if name == FILE else 4 * MAX_TEXT

    def _add(self, data: bytes, start: int, end: int) -> None:
        if len(self._part) + end - start > self._limit:
            if self._part is self._parts.get(FILE):
                raise _too_large(self._limit)
            raise _bad_form(f"A text field is longer than {MAX_TEXT} characters.")
        self._part += data[start:end]

    def _end(self) -> None:
        self._complete = True


def _text(name: str, value: bytearray) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise _bad_form(f"The field {name!r} is not UTF-8.") from None
    if len(text) > MAX_TEXT or not re.fullmatch(TEXT_PATTERN, text):
        raise _bad_form(f"The field {name!r} must be at most {MAX_TEXT} characters, none of them control.")
    return text


def _bad_form(detail: str) -> Problem:
    return Problem("invalid-request", detail)
