"""Bodies read off a stream of chunks; the bytes here need not be images."""

import asyncio
from collections.abc import Iterable

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from app.forms import MAX_TEXT, File, Upload
from app.problems import Problem
from app.scheduling.admission import Admission
from app.uploads import MAX_SMALL, read, read_ahead, read_many
from tests.support import jumping

PICTURE = b"\x89PNG\r\n\x1a\n--B\r\n--B--not yet\r\n" + bytes(range(256)) * 4
LIMIT = 2000


def request(chunks: Iterable[bytes], headers: dict[str, str], *, ends: bool = True) -> Request:
    stream = iter(chunks)

    async def receive() -> Message:
        chunk = next(stream, None)
        if chunk is not None:
            return {"type": "http.request", "body": chunk, "more_body": True}
        return {"type": "http.request", "body": b""} if ends else {"type": "http.disconnect"}

    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw}, receive)


def upload(
    body: bytes,
    headers: dict[str, str],
    *,
    step: int = 7,
    admission: Admission | None = None,
    ends: bool = True,
) -> Upload:
    chunks = [body[i : i + step] for i in range(0, len(body), step)]
    with (admission or Admission(1, 10**6)).reserve("tiny") as room:
        return asyncio.run(read(request(chunks, headers, ends=ends), room, LIMIT, 30))


def part(name: str, data: bytes, rest: str = "") -> bytes:
    return f'--B0\r\nContent-Disposition: form-data; name="{name}"{rest}\r\n\r\n'.encode() + data + b"\r\n"


FORM = {"Content-Type": "multipart/form-data; boundary=B0"}
END = b"--B0--\r\n"
FILE = part("file", PICTURE, '; filename="photo.txt"\r\nContent-Type: text/plain')


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "image/png"},
        {"Content-Type": "IMAGE/JPEG; whatever=1"},
        {"Content-Type": "application/octet-stream"},
        {},
    ],
)
@pytest.mark.parametrize("step", [1, 10_000])
def test_raw_body(headers: dict[str, str], step: int) -> None:
    assert upload(PICTURE, headers, step=step) == Upload([File(None, PICTURE)])


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_form(step: int) -> None:
    body = part("part_id", b"P-1") + FILE + part("station", "Linie ä".encode()) + END
    texts = {"part_id": "P-1", "station": "Linie ä"}
    assert upload(body, FORM, step=step) == Upload([File("photo.txt", PICTURE)], texts)


@pytest.mark.parametrize(
    "media_type",
    ["text/plain", "multipart/mixed", ""],
)
def test_refuses_other_content_types(media_type: str) -> None:
    with pytest.raises(Problem, match="multipart/form-data with a part named 'file'") as caught:
        upload(PICTURE, {"Content-Type": media_type})
    assert caught.value.name == "unsupported-media-type"
    assert repr(media_type) in caught.value.detail


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
def test_refuses_bad_forms(body: bytes, complaint: str) -> None:
    with pytest.raises(Problem, match=complaint) as caught:
        upload(body, FORM)
    assert caught.value.name == "invalid-request"


@pytest.mark.parametrize(
    "header",
    ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=" + "b" * 300],
)
def test_refuses_a_form_without_usable_boundary(header: str) -> None:
    with pytest.raises(Problem, match="boundary") as caught:
        upload(FILE + END, {"Content-Type": header})
    assert caught.value.name == "invalid-request"


RAW = {"Content-Type": "image/png"}


def test_the_limit_is_on_the_image_to_the_byte() -> None:
    assert upload(b"x" * LIMIT, RAW).files == [File(None, b"x" * LIMIT)]
    assert upload(part("file", b"x" * LIMIT) + END, FORM).files == [File(None, b"x" * LIMIT)]
    with pytest.raises(Problem, match="more than 2000 bytes") as caught:
        upload(b"x" * (LIMIT + 1), RAW)
    [file] = upload(part("file", b"x" * (LIMIT + 1)) + END, FORM).files
    assert isinstance(file.data, Problem)
    assert caught.value.name == file.data.name == "too-large"


@pytest.mark.parametrize("length", ["2001", "9" * 400])
def test_a_declared_size_beyond_the_limit_is_refused_unread(length: str) -> None:
    with pytest.raises(Problem) as caught:
        upload(b"", RAW | {"Content-Length": length}, ends=False)
    assert caught.value.name == "too-large"


@pytest.mark.parametrize("length", ["3", "-1", "many"])
def test_a_declared_size_that_lies_changes_nothing(length: str) -> None:
    assert upload(b"x" * LIMIT, RAW | {"Content-Length": length}).files == [File(None, b"x" * LIMIT)]
    with pytest.raises(Problem) as caught:
        upload(b"x" * (LIMIT + 1), RAW | {"Content-Length": length})
    assert caught.value.name == "too-large"


def test_bytes_are_counted_while_they_stream() -> None:
    admission = Admission(max_images=1, max_bytes=500)
    with pytest.raises(Problem) as caught:
        upload(b"x" * 1000, RAW, admission=admission)
    assert caught.value.name == "queue-full"
    assert admission.bytes == 0


@pytest.mark.parametrize("headers", [RAW, FORM])
def test_a_stalled_upload_is_given_up(headers: dict[str, str]) -> None:
    admission = Admission(1, 10**6)
    stream = iter([FILE[:40], FILE[40:80]])

    async def receive() -> Message:
        chunk = next(stream, None)
        if chunk is None:
            await asyncio.Event().wait()  # for ever
        return {"type": "http.request", "body": chunk, "more_body": True}

    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    stalled = Request({"type": "http", "headers": raw}, receive)
    with (
        admission.reserve("tiny") as room,
        pytest.raises(Problem, match=r"nothing came for 0\.05 s") as caught,
    ):
        asyncio.run(read(stalled, room, LIMIT, 0.05))
    assert caught.value.name == "upload-stalled"
    assert admission.bytes == 0


def slow(pieces: Iterable[bytes]) -> Request:
    async def receive() -> Message:
        await asyncio.sleep(0.02)
        chunk = next(stream, None)
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    stream = iter(pieces)
    return Request({"type": "http", "headers": []}, receive)


def test_a_slow_upload_that_goes_on_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.transfer_rate.LEAST_RATE", 1)
    with Admission(1, 10**6).reserve("tiny") as room:
        upload = jumping.run(read(slow([b"x"] * 20), room, LIMIT, 0.3))
    assert upload.files == [File(None, b"x" * 20)]


def test_a_trickle_is_given_up() -> None:
    admission = Admission(1, 10**6)
    with admission.reserve("tiny") as room, pytest.raises(Problem, match="less than 256 KiB a sec") as caught:
        asyncio.run(read(slow([b"x"] * LIMIT), room, LIMIT, 0.3))
    assert caught.value.name == "upload-stalled"
    assert admission.bytes == 0


def ahead(chunks: Iterable[bytes], headers: dict[str, str], *, ends: bool = True) -> list[Message]:
    """The first two messages that the application gets of a small body."""

    async def use() -> list[Message]:
        came = request(chunks, headers, ends=ends)
        receive = await read_ahead(came.scope, came.receive, 30)
        return [await receive(), await receive()]

    return asyncio.run(use())


def test_a_small_body_is_given_whole_and_then_what_comes_after_it() -> None:
    whole, after = ahead([b"ab", b"", b"cd"], {})
    assert whole == {"type": "http.request", "body": b"abcd", "more_body": False}
    assert after["body"] == b""
    with pytest.raises(ClientDisconnect):
        ahead([b"x"], {}, ends=False)


def test_a_small_body_is_limited_to_the_byte() -> None:
    ahead([b"x" * MAX_SMALL], {"Content-Length": str(MAX_SMALL)})
    for chunks, length in (([b"x" * MAX_SMALL, b"x"], "1"), ([], str(MAX_SMALL + 1))):
        with pytest.raises(Problem, match=f"more than {MAX_SMALL} bytes") as caught:
            ahead(chunks, {"Content-Length": length}, ends=False)
        assert caught.value.name == "too-large"


def many(
    body: bytes, headers: dict[str, str], *, step: int = 7, max_files: int = 3, max_total: int = 20_000
) -> Upload:
    chunks = [body[i : i + step] for i in range(0, len(body), step)]
    with Admission(1, 10**6).reserve("tiny") as room:
        return asyncio.run(read_many(request(chunks, headers), room, LIMIT, max_files, max_total, 30))


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_several_files_keep_their_order_and_names(step: int) -> None:
    body = part("file", b"one", '; filename="a.png"') + part("station", b"s") + part("file", b"two") + END
    assert many(body, FORM, step=step) == Upload(
        [File("a.png", b"one"), File(None, b"two")], {"station": "s"}
    )


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_of_several_files_one_that_is_too_large_fails_alone(step: int) -> None:
    body = part("file", b"one") + part("file", b"x" * (LIMIT + 1)) + part("file", b"three") + END
    first, second, third = many(body, FORM, step=step).files
    assert (first.data, third.data) == (b"one", b"three")
    assert isinstance(second.data, Problem)
    assert second.data.name == "too-large"


def test_too_many_files_are_refused() -> None:
    assert len(many(part("file", b"x") * 3 + END, FORM).files) == 3
    with pytest.raises(Problem, match="more than 3 images") as caught:
        many(part("file", b"x") * 4 + END, FORM)
    assert caught.value.name == "too-large"


def test_several_files_are_bounded_together() -> None:
    body = part("file", b"x" * 1500) * 3 + END
    assert len(many(body, FORM, max_total=len(body)).files) == 3
    with pytest.raises(Problem, match=f"more than {len(body) - 1} bytes") as caught:
        many(body, FORM, max_total=len(body) - 1)
    assert caught.value.name == "too-large"
