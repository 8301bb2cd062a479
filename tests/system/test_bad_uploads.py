"""Uploads that no camera should send, put to a real server: each is refused clearly or inspected rightly.

tests/flows/fastflow/imaging/test_decoder.py has many more kinds of damage.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.conftest import picture, png
from tests.support.server import Server

PREDICT = "/v1/models/tiny/predict"
GOOD = picture(1000)
PNG = png(GOOD)


def encoded(kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(GOOD).save(file, kind, **options)
    return file.getvalue()


def claiming(width: int, height: int) -> bytes:
    """Build a PNG with any header and any rows."""
    header = PNG[12:16] + struct.pack(">II", width, height) + PNG[24:29]
    return PNG[:12] + header + struct.pack(">I", zlib.crc32(header)) + PNG[33:]


# Refused: what came, the status, and the type of problem it gets.
BAD: dict[str, tuple[bytes, int, str]] = {
    "nothing at all": (b"", 415, "unsupported-media-type"),
    "text named .png": (b"this is not a picture", 415, "unsupported-media-type"),
    "gif": (encoded("GIF"), 415, "unsupported-media-type"),
    "png header alone": (PNG[:33], 422, "undecodable-image"),
    "png with a flipped byte": (PNG[:-99] + bytes([PNG[-99] ^ 0xFF]) + PNG[-98:], 422, "undecodable-image"),
    "bomb of 60000 x 60000": (claiming(60_000, 60_000), 413, "too-large"),
    "more bytes than allowed": (PNG + bytes(33 * 2**20), 413, "too-large"),
}

# Valid after all: they must score as the same picture does from a plain PNG.
VALID = {
    "a png called .jpg": PNG,
    "a png with bytes after its end": PNG + b"trailing rubbish" * 100,
    "a bmp": encoded("BMP"),
    "a lossless webp": encoded("WEBP", lossless=True),
    "a tiff with lzw": encoded("TIFF", compression="tiff_lzw"),
}


@pytest.fixture(scope="module")
def server(tiny_bundle_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tiny_bundle_store, tmp_path_factory.mktemp("work")) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def post(client: httpx.Client, data: bytes, name: str = "image.png") -> httpx.Response:
    return client.post(PREDICT, files={"file": (name, data, "image/png")})


@pytest.mark.parametrize("kind", BAD)
def test_bad_upload_is_refused_and_next_good_one_accepted(client: httpx.Client, kind: str) -> None:
    data, status, problem = BAD[kind]
    raw = client.post(PREDICT, content=data, headers={"Content-Type": "image/png"})
    for response in (post(client, data), raw):
        assert response.headers["content-type"] == "application/problem+json"
        assert (response.status_code, response.json()["type"]) == (status, problem)
        for secret in ("Traceback", "/usr", ".py", "cv2", "PIL", "OpenCV("):
            assert secret not in response.text
    assert post(client, PNG).status_code == 200


@pytest.mark.parametrize("kind", VALID)
def test_unusual_but_valid_uploads_are_inspected(client: httpx.Client, kind: str) -> None:
    wanted = post(client, PNG).json()["score"]
    response = post(client, VALID[kind], "image.jpg")
    assert response.status_code == 200, response.text
    assert response.json()["score"] == pytest.approx(wanted, rel=1e-9)


@pytest.mark.slow
def test_memory_stays_flat(server: Server, client: httpx.Client) -> None:
    def round_trip() -> None:
        for data, *_ in BAD.values():
            post(client, data)

    for _ in range(3):  # allocators and caches fill up to their working size
        round_trip()
    before = server.resident_bytes()
    for _ in range(10):
        round_trip()
    # A leak of a tenth of the largest upload per round would show.
    assert server.resident_bytes() - before < 32 * 2**20
    assert post(client, PNG).status_code == 200
