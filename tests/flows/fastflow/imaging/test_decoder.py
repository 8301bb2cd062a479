"""The decoder against Pillow and numpy on images made here, and against every kind of bad file."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from flows.fastflow.imaging.decoder import decode_image, decoded_size, read_image, read_image_bytes
from flows.fastflow.imaging.image_errors import (
    ImageError,
    ImageTooLargeError,
    UndecodableError,
    UnsupportedFormatError,
)
from flows.fastflow.imaging.image_limits import DEFAULT_LIMITS, FILE_LIMITS, ImageLimits
from tests.flows.fastflow.saving import save

HEIGHT, WIDTH = 37, 53  # odd, unequal, no multiple of a JPEG block
ROW, COLUMN = np.mgrid[0:HEIGHT, 0:WIDTH]
GRAIN = np.random.default_rng(0).integers(0, 16, (HEIGHT, WIDTH, 3))
RGB = (np.stack([COLUMN * 4, ROW * 6, COLUMN * 2 + ROW * 3], axis=-1) + GRAIN).astype(np.uint8)
DEEP = (RGB.astype(np.uint16) << 8) | ((COLUMN * 7 + ROW * 3)[..., None] % 256).astype(np.uint16)
PHOTO = Image.fromarray(RGB)
ALPHA = Image.fromarray(np.dstack([RGB, RGB[..., 1]]))  # colours under full transparency too
PALETTE = PHOTO.quantize(16)


def png(header: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    parts = [(b"IHDR", header), *chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts
    )


def png_header(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    return struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)


def png_of(samples: NDArray[Any], colour: int) -> bytes:
    """8-bit or 16-bit samples (H, W, C) as PNG of a colour type that Pillow may not write."""
    rows = b"".join(b"\0" + row.astype(samples.dtype.newbyteorder(">")).tobytes() for row in samples)
    header = png_header(samples.shape[1], samples.shape[0], samples.dtype.itemsize * 8, colour)
    return png(header, (b"IDAT", zlib.compress(rows)), (b"IEND", b""))


def tiff_with(data: bytes | bytearray, tags: dict[int, int]) -> bytes:
    """A little-endian TIFF of Pillow's, with other values in tags that it has."""
    changed, (start,) = bytearray(data), struct.unpack_from("<I", data, 4)
    for at in range(start + 2, start + 2 + 12 * struct.unpack_from("<H", data, start)[0], 12):
        tag = struct.unpack_from("<H", data, at)[0]
        if tag in tags:
            struct.pack_into("<HII", changed, at + 2, 4 if tags[tag] > 0xFFFF else 3, 1, tags[tag])
    return bytes(changed)


def bmp(bits: int, pixels: bytes, masks: bytes) -> bytes:
    fields = (40, WIDTH, HEIGHT, 1, bits, 3, len(pixels), 0, 0, 0, 0)
    offset = 54 + len(masks)
    head = struct.pack("<IHHI", offset + len(pixels), 0, 0, offset) + struct.pack("<IiiHHIIiiII", *fields)
    return b"BM" + head + masks + pixels


def bmp_rows(samples: NDArray[Any]) -> bytes:
    lines = [row.tobytes() for row in samples[::-1]]
    return b"".join(line + bytes(-len(line) % 4) for line in lines)


def pillow(data: bytes) -> NDArray[np.uint8]:
    """The truth: as Pillow sees the image, upright, without alpha."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    through = "RGBA" if "transparency" in image.info else "RGB"
    return np.array(image.convert(through).convert("RGB"))


FIVE = (RGB >> 3).astype("<u2")

EXACT = {
    "png": save(PHOTO, "PNG"),
    "png grey": save(PHOTO.convert("L"), "PNG"),
    "png 1-bit": save(PHOTO.convert("1"), "PNG"),
    "png palette": save(PALETTE, "PNG"),
    "png alpha": save(ALPHA, "PNG"),
    "png grey alpha": save(ALPHA.convert("LA"), "PNG"),
    "png palette transparent": save(PALETTE, "PNG", transparency=bytes(range(0, 160, 10))),
    "png one apng frame": save(PHOTO, "PNG", save_all=True),
    "webp lossless": save(PHOTO, "WEBP", lossless=True),
    "webp alpha": save(ALPHA, "WEBP", lossless=True, exact=True),
    "bmp": save(PHOTO, "BMP"),
    "bmp palette": save(PALETTE, "BMP"),
    "bmp alpha": save(ALPHA, "BMP"),
    "bmp 565": bmp(
        16,
        bmp_rows(FIVE[..., 0] << 11 | FIVE[..., 1] << 6 | FIVE[..., 2]),
        struct.pack("<3I", 0xF800, 0x7E0, 0x1F),
    ),
    "tiff alpha": save(ALPHA, "TIFF"),
    "tiff alpha lzw": save(ALPHA, "TIFF", compression="tiff_lzw"),
    "tiff palette": save(PALETTE, "TIFF"),
    "tiff 1-bit": save(PHOTO.convert("1"), "TIFF"),
    "tiff cmyk": save(PHOTO.convert("CMYK"), "TIFF"),
    "tiff zero is white": tiff_with(save(PHOTO.convert("L"), "TIFF"), {262: 0}),
    **{
        f"tiff {mode} {compression}": save(PHOTO.convert(mode), "TIFF", compression=compression)
        for mode in ("RGB", "L")
        for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
    },
}
CMYK = save(PHOTO.convert("CMYK"), "JPEG", quality=95)
CLOSE = {
    "jpeg": save(PHOTO, "JPEG", quality=90),
    "jpeg grey": save(PHOTO.convert("L"), "JPEG"),
    "jpeg progressive": save(PHOTO, "JPEG", progressive=True),
    "jpeg full chroma": save(PHOTO, "JPEG", subsampling=0),
    "jpeg kept as rgb": save(PHOTO, "JPEG", keep_rgb=True),
    "jpeg restarts": save(PHOTO, "JPEG", restart_marker_rows=1),
    "jpeg cmyk": CMYK,
    "jpeg ycck": CMYK.replace(b"Adobe\0d\0\0\0\0\0", b"Adobe\0d\0\0\0\0\2"),
    "webp": save(PHOTO, "WEBP", quality=80),
}
ALL = EXACT | CLOSE


@pytest.mark.parametrize("name", ALL)
def test_pixels_are_those_of_pillow(name: str) -> None:
    image, truth = decode_image(ALL[name]), pillow(ALL[name])
    assert image.shape == truth.shape
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.flags.writeable
    # Rounding is left to the codec where it is lossy, and in the conversion of CMYK.
    tolerance = 0 if name in EXACT else 2
    assert np.abs(image.astype(int) - truth).max() <= tolerance


GREY = DEEP[..., :1]
OPAQUE = np.dstack([DEEP, GREY])


SIXTEEN = {
    "png grey": (png_of(GREY, 0), GREY),
    "png grey alpha": (png_of(np.dstack([GREY, GREY]), 4), GREY),
    "png rgb": (png_of(DEEP, 2), DEEP),
    "png rgb alpha": (png_of(OPAQUE, 6), DEEP),
    "tiff": (save(Image.fromarray(GREY[..., 0]), "TIFF"), GREY),
    "tiff lzw": (save(Image.fromarray(GREY[..., 0]), "TIFF", compression="tiff_lzw"), GREY),
    "tiff big-endian": (save(Image.fromarray(GREY[..., 0].astype(">u2")), "TIFF"), GREY),
    "tiff zero is white": (tiff_with(save(Image.fromarray(GREY[..., 0]), "TIFF"), {262: 0}), 65535 - GREY),
    "tiff rgb": (cv2.imencode(".tif", DEEP[..., ::-1])[1].tobytes(), DEEP),
    "tiff rgb alpha": (cv2.imencode(".tif", OPAQUE[..., [2, 1, 0, 3]])[1].tobytes(), DEEP),
}


@pytest.mark.parametrize("name", SIXTEEN)
def test_of_sixteen_bits_the_high_byte_is_kept(name: str) -> None:
    data, samples = SIXTEEN[name]
    np.testing.assert_array_equal(decode_image(data), np.broadcast_to(samples >> 8, RGB.shape))


def oriented(kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    return save(PHOTO, kind, exif=exif, **options)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    data = oriented(kind, orientation)
    image, truth = decode_image(data), pillow(data)
    assert image.shape == truth.shape
    assert image.shape == ((WIDTH, HEIGHT, 3) if orientation > 4 else (HEIGHT, WIDTH, 3))
    assert decoded_size(data) == image.shape[:2]
    assert np.abs(image.astype(int) - truth).max() <= (2 if kind == "JPEG" else 0)
    assert image.flags.c_contiguous
    assert image.flags.writeable


def test_the_size_is_told_by_the_header_alone() -> None:
    assert decoded_size(claiming("png", 3000, 2000)) == (2000, 3000)
    with pytest.raises(ImageTooLargeError, match="60000 x 2 pixels"):
        decoded_size(claiming("png", 60_000, 2))
    with pytest.raises(UnsupportedFormatError):
        decoded_size(b"text")


@pytest.mark.parametrize("name", ALL)
def test_truncated_file_is_never_partly_filled(name: str) -> None:
    data = ALL[name]
    whole = decode_image(data)
    everywhere = range(0, len(data), 1 + len(data) // 150)
    for cut in {*range(120), *everywhere, *range(len(data) - 40, len(data))}:
        try:
            image = decode_image(data[:cut])
        except UnsupportedFormatError:
            assert cut < 18  # shorter than the signature
        except UndecodableError:
            pass
        else:
            # The last bytes may be padding, or say no more than that this is the end: without
            # them the image is still all there.
            assert cut >= len(data) - 4, f"accepted with {cut} of {len(data)} bytes"
            assert name.startswith(("bmp", "tiff", "jpeg"))
            np.testing.assert_array_equal(image, whole)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"a text that someone named .png",
        b"BMW builds cars, and this is no bitmap, however it begins.",
        b"<!DOCTYPE html><html><body>404</body></html>",
        b"RIFF\x24\0\0\0WAVEfmt ",
        b"\x89PNG\n\x1a\n",  # what a transfer as text makes of a PNG
        save(PHOTO, "GIF"),
        save(PHOTO, "JPEG2000"),
    ],
)
def test_what_is_none_of_the_formats_is_unsupported(data: bytes) -> None:
    with pytest.raises(UnsupportedFormatError, match="not a PNG, JPEG, BMP, TIFF or WEBP image: it"):
        decode_image(data)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_several_frames_are_rejected(kind: str) -> None:
    data = save(PHOTO, kind, save_all=True, append_images=[PHOTO.rotate(180)])
    with pytest.raises(UndecodableError, match="several frames or pages"):
        decode_image(data)


FLOATS = np.where(ROW == 3, np.nan, COLUMN).astype(np.float32)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (save(Image.fromarray(FLOATS), "TIFF"), "floating point"),
        (save(Image.fromarray(COLUMN.astype(np.int32)), "TIFF"), "32-bit integers"),
        (save(PHOTO.convert("LAB"), "TIFF"), "CIELAB"),
        (cv2.imencode(".tif", FLOATS[..., None].repeat(3, axis=2))[1].tobytes(), "rare kind"),
        (tiff_with(EXACT["tiff RGB raw"], {258: 16, 284: 2}), "separate colour planes"),
    ],
    ids=["float", "int32", "lab", "float rgb", "planes"],
)
def test_pixels_of_another_kind_are_rejected(data: bytes, what: str) -> None:
    with pytest.raises(UndecodableError, match=what):
        decode_image(data)


def claiming(kind: str, width: int, height: int) -> bytes:
    """A small valid file whose header alone is changed to claim another size."""
    data = bytearray(ALL[kind])
    if kind == "png":
        return png(png_header(width, height), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    if kind == "jpeg":
        struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height, width)
    if kind.startswith("tiff"):
        return tiff_with(data, {256: width, 257: height, 278: height})
    return bytes(data)


SIZED = ["png", "jpeg", "tiff RGB raw"]


@pytest.mark.parametrize("kind", SIZED)
@pytest.mark.parametrize("size", [(60_000, 60_000), (16_385, 1), (1, 16_385), (7072, 7072)])
def test_header_that_claims_too_much_is_too_large(kind: str, size: tuple[int, int]) -> None:
    with pytest.raises(ImageTooLargeError, match=f"{size[0]} x {size[1]} pixels"):
        decode_image(claiming(kind, *size))


@pytest.mark.parametrize("kind", [*SIZED, "webp"])
def test_limits_are_what_is_allowed_and_no_more(kind: str) -> None:
    data = ALL[kind]
    exactly = ImageLimits(max_bytes=len(data), max_pixels=HEIGHT * WIDTH, max_side=WIDTH)
    assert decode_image(data, exactly).shape == RGB.shape
    for limits, what in [
        (ImageLimits(max_bytes=len(data) - 1), f"larger than the {len(data) - 1:,} bytes"),
        (ImageLimits(max_pixels=HEIGHT * WIDTH - 1), f"at most {HEIGHT * WIDTH - 1:,} pixels"),
        (ImageLimits(max_side=WIDTH - 1), f"{WIDTH - 1} along a side"),
    ]:
        with pytest.raises(ImageTooLargeError, match=what):
            decode_image(data, limits)


def test_tile_of_a_tiff_that_is_too_large_is_rejected() -> None:
    tags = {256: 64, 257: 64, 258: 8, 259: 1, 262: 1, 322: 60_000, 323: 60_000, 324: 8, 325: 9}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4)
    with pytest.raises(ImageTooLargeError, match="A tile of the image has 60000 x 60000 pixels"):
        decode_image(data)


def test_jpeg_of_too_many_scans_is_rejected() -> None:
    progressive = save(Image.new("L", (8000, 6000)), "JPEG", progressive=True)
    last_scan = progressive[progressive.rindex(b"\xff\xda") : -2]
    with pytest.raises(UndecodableError, match=r"10,\d{3} scans, too many for its size"):
        decode_image(progressive[:-2] + last_scan * 10_000 + b"\xff\xd9")


def damaged_pngs() -> dict[str, bytes]:
    rows = b"".join(b"\0" + row.tobytes() for row in RGB)
    header, pixels, end = png_header(WIDTH, HEIGHT), zlib.compress(rows), (b"IEND", b"")
    flipped = bytearray(EXACT["png"])
    flipped[len(flipped) // 2] ^= 1
    return {
        "checksum": bytes(flipped),
        "half the rows": png(header, (b"IDAT", zlib.compress(rows[: len(rows) // 2])), end),
        "adler": png(header, (b"IDAT", pixels[:-4] + b"abcd"), end),
        "no pixels": png(header, end),
        "no end": png(header, (b"IDAT", pixels)),
        "two headers": png(header, (b"IHDR", header), (b"IDAT", pixels), end),
        "header alone": png(header),
    }


@pytest.mark.parametrize("name", damaged_pngs())
def test_damaged_png_is_undecodable(name: str) -> None:
    with pytest.raises(UndecodableError, match="truncated, damaged"):
        decode_image(damaged_pngs()[name])


FUZZED = [*ALL.values(), *(oriented(kind, 6) for kind in ("JPEG", "PNG", "WEBP", "TIFF"))]
PLACES = st.integers(0, 400) | st.integers(0, 10**6)


@settings(max_examples=700, derandomize=True)
@given(
    data=st.sampled_from(FUZZED).map(bytearray),
    edits=st.lists(st.tuples(PLACES, st.integers(0, 8), st.binary(max_size=8)), min_size=1, max_size=6),
)
def test_any_bytes_give_an_image_or_an_image_error(
    data: bytearray, edits: list[tuple[int, int, bytes]]
) -> None:
    for at, length, new in edits:
        start = at % (len(data) + 1)
        data[start : start + length] = new
    with contextlib.suppress(ImageError):
        image = decode_image(bytes(data))
        assert image.dtype == np.uint8
        assert image.shape[2:] == (3,)
        assert image.flags.c_contiguous
        assert image.flags.writeable


def outcome(data: bytes) -> NDArray[np.uint8] | str:
    try:
        return decode_image(data)
    except ImageError as error:
        return str(error)


def test_several_threads_decode_at_once() -> None:
    files = [*ALL.values(), *damaged_pngs().values(), b"", claiming("png", 60_000, 60_000)] * 4
    alone = [outcome(data) for data in files]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(outcome, files))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", UnsupportedFormatError),
        (EXACT["png"][:99], UndecodableError),
        (EXACT["png"], ImageTooLargeError),
    ],
)
def test_read_names_the_file_that_is_bad(tmp_path: Path, content: bytes, error: type[ImageError]) -> None:
    file = tmp_path / "part 7.png"
    file.write_bytes(content)
    with pytest.raises(error, match=r"part 7\.png: The"):
        read_image(file, ImageLimits(max_bytes=len(EXACT["png"]) - 1))


@pytest.mark.parametrize("kind", ["png", "tif"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_of_fewer_bits_the_upper_8_are_kept_and_more_is_white(kind: str, bits: int) -> None:
    upper, below = RGB[..., 0].astype(np.uint16), (RGB[..., 1] % 2 ** (bits - 8)).astype(np.uint16)
    samples = upper << (bits - 8) | below
    samples[0, :2] = 2**bits, 2**16 - 1
    wanted = RGB[..., 0].copy()
    wanted[0, :2] = 255
    found = decode_image(cv2.imencode(f".{kind}", samples)[1].tobytes(), sample_bits=bits)
    assert found.dtype == np.uint8
    assert found.tolist() == np.repeat(wanted[..., None], 3, 2).tolist()


def test_tiff_reduced_to_its_high_byte_is_rejected() -> None:
    data = cv2.imencode(".tif", DEEP)[1].tobytes()
    with pytest.raises(
        UndecodableError, match="several channels of 16 bits, 12 of them used, is not read; send"
    ):
        decode_image(data, sample_bits=12)
    assert decode_image(data).shape == (HEIGHT, WIDTH, 3)


def test_reading_stops_one_byte_after_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "endless.png"
    with path.open("wb") as file:
        file.truncate(2**40)
    limits = ImageLimits(max_bytes=1000)
    assert len(read_image_bytes(path, limits)) == 1001
    with pytest.raises(ImageTooLargeError):
        read_image(path, limits)
    assert FILE_LIMITS.max_pixels == DEFAULT_LIMITS.max_pixels
