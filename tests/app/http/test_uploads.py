"""Bodies are read from streams of chunks; the bytes need not be images."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from app.errors.problems import Problem
from app.http.forms import Upload, UploadedFile
from app.http.uploads import MAX_SMALL, buffer_body, read_upload
from app.scheduling.admission import Admission
from app.schemas.texts import MAX_TEXT
from app.settings import Settings
from tests.support import jumping

PICTURE = b"\x89PNG\r\n\x1a\n--B\r\n--B--not yet\r\n" + bytes(range(256)) * 4
LIMIT = 2000
SETTINGS = Settings(max_bytes=LIMIT)


def request(chunks: AsyncIterator[bytes], headers: dict[str, str]) -> Request:
    async def receive() -> Message:
        chunk = await anext(chunks, None)
        if chunk == LEAVES:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw}, receive)


LEAVES = b"(leaves)"  # a piece in whose place the client is gone
RAW = {"Content-Type": "image/png"}
FORM = {"Content-Type": "multipart/form-data; boundary=B0"}
END = b"--B0--\r\n"


def part(name: str, data: bytes, rest: str = "") -> bytes:
    return f'--B0\r\nContent-Disposition: form-data; name="{name}"{rest}\r\n\r\n'.encode() + data + b"\r\n"


FILE = part("file", PICTURE, '; filename="photo.txt"\r\nContent-Type: text/plain')


async def pieces(body: bytes, step: int) -> AsyncIterator[bytes]:
    for begin in range(0, len(body), step):
        yield body[begin : begin + step]


def upload(body: bytes, headers: dict[str, str], *, step: int = 7, room: int = 10**6) -> Upload:
    admission = Admission(1, room)
    try:
        with admission.reserve("tiny") as reservation:
            return asyncio.run(read_upload(request(pieces(body, step), headers), reservation, SETTINGS))
    finally:
        assert admission.bytes == 0


def many(body: bytes, *, step: int = 7, **limits: Any) -> Upload:
    with Admission(1, 10**6).reserve("tiny") as room:
        asked = request(pieces(body, step), FORM)
        return asyncio.run(read_upload(asked, room, Settings(**{"max_bytes": LIMIT} | limits), max_files=3))


def refused(name: str, match: str, body: bytes, headers: dict[str, str], **options: int) -> None:
    with pytest.raises(Problem, match=match) as caught:
        upload(body, headers, **options)
    assert caught.value.name == name


@pytest.mark.parametrize(
    "headers",
    [RAW, {"Content-Type": "IMAGE/JPEG; whatever=1"}, {"Content-Type": "application/octet-stream"}, {}],
)
@pytest.mark.parametrize("step", [1, 10_000])
def test_raw_body(headers: dict[str, str], step: int) -> None:
    assert upload(PICTURE, headers, step=step) == Upload([UploadedFile(None, PICTURE)])


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_form(step: int) -> None:
    body = part("part_id", b"P-1") + FILE + part("station", "Linie ä".encode()) + END
    texts = {"part_id": "P-1", "station": "Linie ä"}
    assert upload(body, FORM, step=step) == Upload([UploadedFile("photo.txt", PICTURE)], texts)


@pytest.mark.parametrize("media_type", ["text/plain", "multipart/mixed", ""])
def test_other_content_type_is_refused(media_type: str) -> None:
    match = f"{media_type!r}; send multipart/form-data with a part named 'file', or the image itself"
    refused("unsupported-media-type", match, PICTURE, {"Content-Type": media_type})


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"", "ends before its closing boundary"),
        (FILE, "ends before its closing boundary"),
        (part("part_id", b"P-1") + END, "no part named 'file'"),
        (part("picture", PICTURE) + END, "'picture' is unknown; parts are file, part_id"),
        (FILE + FILE + END, "'file' came more than once"),
        (FILE + part("station", b"1") + part("station", b"2") + END, "'station' came more than once"),
        (FILE + part("station", b"\xff\xfe") + END, "'station' is not UTF-8"),
        (FILE + part("station", b"a\0b") + END, "none of them control"),
        (FILE + part("station", b"x" * (MAX_TEXT + 1)) + END, "at most 256"),
        (b"--B0\r\n\r\n" + PICTURE + b"\r\n" + END, "no well-formed"),
        (part("file", PICTURE, "\r\nContent-Transfer-Encoding: x") + END, "no well-formed"),
        (b"--OTHER\r\n" + FILE + END, "no well-formed"),
        (b"--B0\r\nContent-Disposition\x01: x\r\n\r\n" + END, "no well-formed"),
    ],
)
def test_malformed_form_is_refused(body: bytes, complaint: str) -> None:
    refused("invalid-request", complaint, body, FORM)


@pytest.mark.parametrize("parameter", ["", "; boundary=", "; boundary=" + "b" * 300])
def test_form_without_usable_boundary_is_refused(parameter: str) -> None:
    headers = {"Content-Type": f"multipart/form-data{parameter}"}
    refused("invalid-request", "boundary", FILE + END, headers)


@pytest.mark.parametrize("declared", [{}, {"Content-Length": "3"}, {"Content-Length": "many"}])
def test_image_size_is_limited_to_the_byte(declared: dict[str, str]) -> None:
    assert upload(b"x" * LIMIT, RAW | declared).files == [UploadedFile(None, b"x" * LIMIT)]
    assert upload(part("file", b"x" * LIMIT) + END, FORM | declared).files == [
        UploadedFile(None, b"x" * LIMIT)
    ]
    refused("too-large", "more than 2000 bytes", b"x" * (LIMIT + 1), RAW | declared)
    [file] = upload(part("file", b"x" * (LIMIT + 1)) + END, FORM | declared).files
    assert isinstance(file.data, Problem)
    assert file.data.name == "too-large"


@pytest.mark.parametrize("length", ["2001", "9" * 400])
def test_declared_size_above_the_limit_is_refused_unread(length: str) -> None:
    refused("too-large", "more than 2000 bytes", LEAVES, RAW | {"Content-Length": length}, step=100)


@pytest.mark.parametrize("headers", [RAW, FORM])
def test_bytes_are_counted_while_they_stream(headers: dict[str, str]) -> None:
    refused("queue-full", "bytes", FILE, headers, room=500)


def given_up(chunks: AsyncIterator[bytes], seconds: float, headers: dict[str, str]) -> str:
    """Return the message of an aborted upload, whose bytes are no longer counted."""
    admission = Admission(1, 10**6)
    settings = Settings(max_bytes=LIMIT, upload_idle_seconds=seconds)
    with admission.reserve("tiny") as room, pytest.raises(Problem) as caught:
        asyncio.run(read_upload(request(chunks, headers), room, settings))
    assert (caught.value.name, admission.bytes) == ("upload-stalled", 0)
    return caught.value.detail


async def slow(number: int) -> AsyncIterator[bytes]:
    for _ in range(number):
        await asyncio.sleep(0.02)
        yield b"x"


@pytest.mark.parametrize("headers", [RAW, FORM])
def test_stalled_upload_is_aborted(headers: dict[str, str]) -> None:
    async def stalls() -> AsyncIterator[bytes]:
        yield FILE[:40]
        yield FILE[40:80]
        await asyncio.Event().wait()  # for ever

    assert "nothing came for 0.05 s" in given_up(stalls(), 0.05, headers)


def test_trickling_upload_is_aborted() -> None:
    assert "less than 256 KiB a sec" in given_up(slow(LIMIT), 0.3, RAW)


def test_slow_but_steady_upload_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.http.transfer_rate.MIN_RATE", 1)
    settings = Settings(max_bytes=LIMIT, upload_idle_seconds=0.3)
    with Admission(1, 10**6).reserve("tiny") as room:
        upload = jumping.run(read_upload(request(slow(20), {}), room, settings))
    assert upload.files == [UploadedFile(None, b"x" * 20)]


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_too_large_file_of_several_fails_alone(step: int) -> None:
    long_name = '; filename="' + "a" * 5000 + '"'
    body = part("file", b"one", long_name) + part("station", b"s") + part("file", b"x" * 2001)
    several = many(body + part("file", b"three") + END, step=step)
    first, second, third = several.files
    assert (first, third) == (UploadedFile("a" * MAX_TEXT, b"one"), UploadedFile(None, b"three"))
    assert several.texts == {"station": "s"}
    assert isinstance(second.data, Problem)
    assert second.data.name == "too-large"


def test_files_are_limited_in_number_and_total_size() -> None:
    body = part("file", b"x" * 1500) * 3 + END
    limits = {"max_bytes": 1500, "max_pixels": 1, "queue_bytes": 2 * len(body)}
    assert len(many(body, **limits).files) == 3
    with pytest.raises(Problem, match=f"more than {len(body) - 1} bytes") as caught:
        many(body, **limits | {"queue_bytes": 2 * len(body) - 2})
    assert caught.value.name == "too-large"
    with pytest.raises(Problem, match="more than 3 images") as caught:
        many(part("file", b"x") + body)
    assert caught.value.name == "too-large"


def ahead(chunks: list[bytes], headers: dict[str, str]) -> list[Message]:
    """Return the first two messages that the application receives."""

    async def each() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    async def use() -> list[Message]:
        came = request(each(), headers)
        receive = await buffer_body(came.scope, came.receive, SETTINGS)
        return [await receive(), await receive()]

    return asyncio.run(use())


def test_buffered_body_is_replayed_before_later_messages() -> None:
    whole, after = ahead([b"ab", b"", b"cd"], {})
    assert whole == {"type": "http.request", "body": b"abcd", "more_body": False}
    assert after["body"] == b""
    with pytest.raises(ClientDisconnect):
        ahead([b"x", LEAVES], {})


def test_small_body_is_limited_to_the_byte() -> None:
    ahead([b"x" * MAX_SMALL], {"Content-Length": str(MAX_SMALL)})
    for chunks, length in (([b"x" * MAX_SMALL, b"x"], "1"), ([LEAVES], str(MAX_SMALL + 1))):
        with pytest.raises(Problem, match=f"more than {MAX_SMALL} bytes") as caught:
            ahead(chunks, {"Content-Length": length})
        assert caught.value.name == "too-large"


@pytest.mark.parametrize(
    ("name", "kept"), [("a/b\\c.png", "c.png"), ("line\nbreak.png", None), ("folder/", None), (None, None)]
)
def test_only_the_last_part_of_a_file_name_is_kept(name: str | None, kept: str | None) -> None:
    assert UploadedFile(name, b"").base_name == kept
