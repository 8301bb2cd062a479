"""Streaming parser for forms with images, multipart/form-data (RFC 7578)."""

import math
import re
from dataclasses import dataclass, field
from io import BytesIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, FormParser
from python_multipart.multipart import File as FilePart

from app.errors.problems import Problem
from app.schemas.texts import MAX_TEXT, text_fault

FILE = "file"
# The first four are named as in OPC 40100-1, machine vision.
TEXT_FIELDS = ("part_id", "product_id", "recipe_id", "station", "file_name")


@dataclass(frozen=True)
class UploadedFile:
    """A file of an upload; a file above the limit has a problem in place of its bytes."""

    name: str | None
    data: bytes | Problem

    @property
    def base_name(self) -> str | None:
        """The name without folders; None if there is none, or it has control characters."""
        name = re.split(r"[\\/]", self.name or "")[-1]
        return None if text_fault(name) else name or None


@dataclass(frozen=True)
class Upload:
    """An upload: one or more files and their text fields."""

    files: list[UploadedFile]
    texts: dict[str, str] = field(default_factory=dict)

    def require_no_texts(self) -> None:
        """Raise the problem invalid-request if there are text fields."""
        if self.texts:
            raise _bad_form(f"Unknown form field {min(self.texts)!r}; send it in the query.")


class MultipartForm:
    """Collects the parts of a multipart body in memory. The caller limits the size of the body.

    Raises:
        Problem: invalid-request or too-large.
    """

    def __init__(self, boundary: bytes, max_bytes: int, max_files: int) -> None:
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._upload = Upload([])
        self._complete = False
        config = {"MAX_MEMORY_FILE_SIZE": math.inf, "UPLOAD_ERROR_ON_BAD_CTE": True}
        config["MAX_HEADER_SIZE"] = 2**16  # a long file name is shortened
        try:
            self._parser = FormParser(
                "multipart/form-data", self._add_field, self._add_file, self._end, boundary, config=config
            )
        except FormParserError:
            raise _bad_form("The boundary parameter of multipart/form-data is too long.") from None
        if not boundary:
            raise _bad_form("The content type multipart/form-data lacks its boundary parameter.")

    def feed(self, chunk: bytes) -> None:
        """Parse the next chunk of the body."""
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise _bad_form("The body is no well-formed multipart/form-data.") from None

    def finish(self) -> Upload:
        """Return the upload after the end of the body."""
        if not self._complete:
            raise _bad_form("The multipart body ends before its closing boundary.")
        if not self._upload.files:
            raise _bad_form(f"The multipart body has no part named {FILE!r}, which holds the image.")
        return self._upload

    def _add_field(self, part: Field) -> None:
        self._add(part.field_name, None, part.value)

    def _add_file(self, part: FilePart) -> None:
        name = (part.file_name or b"").decode("utf-8", "replace")[:MAX_TEXT]
        content = part.file_object
        assert isinstance(content, BytesIO)  # noqa: S101  (MAX_MEMORY_FILE_SIZE is infinite)
        self._add(part.field_name, name or None, content.getvalue())

    def _add(self, field_name: bytes | None, filename: str | None, value: bytes | None) -> None:
        name = (field_name or b"").decode("utf-8", "replace")
        value = value or b""
        files, texts = self._upload.files, self._upload.texts
        if name == FILE:
            if len(files) == self._max_files == 1:
                raise _bad_form(f"The part {name!r} came more than once; predict:batch takes several.")
            if len(files) == self._max_files:
                raise Problem("too-large", f"The request has more than {self._max_files} images, the limit.")
            fits = len(value) <= self._max_bytes
            files.append(UploadedFile(filename, value if fits else too_large(self._max_bytes)))
        elif name not in TEXT_FIELDS:
            allowed = ", ".join((FILE, *TEXT_FIELDS))
            raise _bad_form(f"The part {name[:64]!r} is unknown; parts are {allowed}.")
        elif name in texts:
            raise _bad_form(f"The part {name!r} came more than once.")
        else:
            texts[name] = _text(name, value)

    def _end(self) -> None:
        self._complete = True


def _text(name: str, value: bytes) -> str:
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
    """Make the problem of an image above the limit."""
    return Problem("too-large", f"The image has more than {max_bytes} bytes, the limit.")
