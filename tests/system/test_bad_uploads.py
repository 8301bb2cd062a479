"""Uploads that no camera should send, put to a real server: each is refused clearly or inspected rightly."""

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.conftest import picture, png
from tests.support.server import Server

PREDICT = "/v1/models/tiny/predict"
GOOD = picture(1000)
REFUSED = {400, 413, 415, 422}


def encoded(kind: str, image: Image.Image | None = None, **options: object) -> bytes:
    file = io.BytesIO()
    (image or Image.fromarray(GOOD)).save(file, kind, **options)
    return file.getvalue()


def png_of(width: int, height: int, rows: bytes) -> bytes:
    """A PNG whose header says what we like, whatever its rows hold."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows, 9))
        + chunk(b"IEND", b"")
    )


def tiff(pixels: NDArray[np.float32]) -> bytes:
    return encoded("TIFF", Image.fromarray(pixels))


def frames(kind: str) -> bytes:
    pictures = [Image.fromarray(picture(i)) for i in range(3)]
    return encoded(kind, pictures[0], save_all=True, append_images=pictures[1:])


def damaged(data: bytes, at: float) -> bytes:
    """A byte in the middle of the compressed data turned round."""
    position = int(len(data) * at)
    return data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :]


PNG, TIFF = png(GOOD), encoded("TIFF")
NAN = np.full((64, 64), np.nan, np.float32)

# Refused: what came, and the type of problem it gets. tests/flows/fastflow/test_images.py has many more.
BAD: dict[str, tuple[bytes, str]] = {
    "nothing at all": (b"", "unsupported-media-type"),
    "text named .png": (b"this is not a picture", "unsupported-media-type"),
    "animated gif": (frames("GIF"), "unsupported-media-type"),
    "tiff header alone": (TIFF[:8], "undecodable-image"),
    "png with too few rows": (png_of(64, 64, bytes(193) * 10), "undecodable-image"),
    "png with a flipped byte": (damaged(PNG, 0.5), "undecodable-image"),
    "bomb of 60000 x 60000": (png_of(60_000, 60_000, bytes(1_000_000)), "too-large"),
    "bomb of 2^31 - 1 both ways": (png_of(2**31 - 1, 2**31 - 1, bytes(100)), "too-large"),
    "more bytes than allowed": (PNG + bytes(33 * 2**20), "too-large"),
    "tiff of NaN": (tiff(NAN), "undecodable-image"),
}

# Valid after all: they must score as the same picture does from a plain PNG.
VALID: dict[str, bytes] = {
    "a png called .jpg": PNG,
    "a png with bytes after its end": PNG + b"trailing rubbish" * 100,
    "a bmp": encoded("BMP"),
    "a lossless webp": encoded("WEBP", lossless=True),
    "a png with alpha": encoded("PNG", Image.fromarray(GOOD).convert("RGBA")),
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


def expect_problem(response: httpx.Response, name: str) -> None:
    assert response.status_code in REFUSED, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"] == name
    for secret in ("Traceback", "/usr", ".py", "cv2", "PIL", "OpenCV("):
        assert secret not in response.text


@pytest.mark.parametrize("kind", BAD)
def test_refused_and_the_next_good_one_is_answered(client: httpx.Client, kind: str) -> None:
    data, problem = BAD[kind]
    expect_problem(post(client, data), problem)
    raw = client.post(PREDICT, content=data, headers={"Content-Type": "image/png"})
    expect_problem(raw, problem)
    assert post(client, PNG).status_code == 200


@pytest.mark.parametrize("kind", VALID)
def test_valid_after_all(client: httpx.Client, kind: str) -> None:
    wanted = post(client, PNG).json()["score"]
    response = post(client, VALID[kind], "image.jpg")
    assert response.status_code == 200, response.text
    assert response.json()["score"] == pytest.approx(wanted, rel=1e-9)


@pytest.mark.slow
def test_memory_stays_flat(server: Server, client: httpx.Client) -> None:
    def round_trip() -> None:
        for data, _ in BAD.values():
            post(client, data)

    for _ in range(3):  # allocators and caches fill up to their working size
        round_trip()
    before = server.resident_bytes()
    for _ in range(10):
        round_trip()
    # A leak of a tenth of the largest upload per round would show.
    assert server.resident_bytes() - before < 32 * 2**20
    assert post(client, PNG).status_code == 200
