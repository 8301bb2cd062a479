"""A form with images in it, multipart/form-data (RFC 7578), taken apart while it streams in."""

from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.problems import Problem
from app.schemas.texts import MAX_TEXT as MAX_TEXT
from app.schemas.texts import TEXT_PATTERN as TEXT_PATTERN
from app.schemas.texts import text_fault

FILE = "file"
# The names of OPC 40100-1, machine vision.
TEXT_FIELDS = ("part_id", "product_id", "recipe_id", "station")


@dataclass(frozen=True)
class File:
    """A file of an upload; of one that is larger than the limit, the problem instead of its bytes."""

    name: str | None
    data: bytes | Problem


@dataclass(frozen=True)
class Upload:
    """An upload: its files, one or more, and the text fields that came with them."""

    files: list[File]
    texts: dict[str, str] = field(default_factory=dict)


class _Part:
    """A part of a form while it streams in; of a file, its name."""

    def __init__(self, field_name: str, filename: str | None, limit: int) -> None:
        self.field_name = field_name
        self.filename = filename
        self.limit = limit
        self.data = bytearray()
        self.overflowed = False


class Form:
    """Collects the parts of a multipart body while it streams in.

    Args:
        boundary: what separates the parts.
        max_bytes: the limit on each image's bytes. Where one image is wanted, a larger one is refused at
            once; of several, it fails alone.
        max_files: the limit on the number of images; None where one is wanted.

    Raises:
        Problem: invalid-request or too-large.
    """

    def __init__(self, boundary: bytes, max_bytes: int, max_files: int | None) -> None:
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._files: list[_Part] = []
        self._texts: dict[str, _Part] = {}
        self._part = _Part("", None, 0)
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
        if not self._files:
            raise _bad_form(f"The multipart body has no part named {FILE!r}, which holds the image.")
        files = []
        for part in self._files:
            content = too_large(part.limit) if part.overflowed else bytes(part.data)
            part.data.clear()  # or all of them would be held twice, of which one is counted
            files.append(File(part.filename, content))
        return Upload(files, {name: _text(name, part.data) for name, part in self._texts.items()})

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
        if name == FILE:
            if self._files and self._max_files is None:
                raise _bad_form(f"The part {name!r} came more than once; predict:batch takes several.")
            if len(self._files) == self._max_files:
                raise Problem("too-large", f"The request has more than {self._max_files} images, the limit.")
            filename = options.get(b"filename", b"").decode("utf-8", "replace")[:MAX_TEXT] or None
            self._part = _Part(name, filename, self._max_bytes)
            self._files.append(self._part)
        else:
            if name in self._texts:
                raise _bad_form(f"The part {name!r} came more than once.")
            self._part = self._texts[name] = _Part(name, None, 4 * MAX_TEXT)

    def _add(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        if part.overflowed or len(part.data) + end - start > part.limit:
            if part.field_name != FILE:
                raise _bad_form(f"A text field is longer than {MAX_TEXT} characters.")
            if self._max_files is None:
                raise too_large(part.limit)
            part.overflowed = True
            part.data.clear()
            return
        part.data += data[start:end]

    def _end(self) -> None:
        self._complete = True


def _text(name: str, value: bytearray) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise _bad_form(f"The field {name!r} is not UTF-8.") from None
    if fault := text_fault(text):
        raise _bad_form(f"The field {name!r} {fault}.")
    return text


def _bad_form(detail: str) -> Problem:
    return Problem("invalid-request", detail)


def too_large(max_bytes: int) -> Problem:
    """The problem of an image that is larger than the limit."""
    return Problem("too-large", f"The image has more than {max_bytes} bytes, the limit.")
