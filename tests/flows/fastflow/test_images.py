"""The decoder against Pillow and numpy on pictures made here, and against every kind of bad file."""

from __future__ import annotations

import contextlib
import io
import struct
import subprocess
import sys
import warnings
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

from flows.fastflow.images import (
    DEFAULT_LIMITS,
    FILE_LIMITS,
    IMAGE_SUFFIXES,
    ImageError,
    Limits,
    TooLarge,
    Undecodable,
    UnsupportedFormat,
    bits_used,
    decode,
    read,
    read_bytes,
    size_of,
)
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
    """A PNG file of the chunks given, their checksums right."""
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


def bmp(bits: int, pixels: bytes, *, compression: int = 0, extra: bytes = b"", flip: int = 1) -> bytes:
    """A BMP of any layout. ``extra``: masks or palette, the masks as part of a longer header."""
    masks = extra if compression == 3 else b""
    fields = (40, WIDTH, flip * HEIGHT, 1, bits, compression, len(pixels), 0, 0, 0, 0)
    header = struct.pack("<IiiHHIIiiII", *fields)
    if len(masks) == 16:  # with an alpha mask: a version 4 header
        header = struct.pack("<I", 108) + header[4:] + masks.ljust(68, b"\0")
        extra = b""
    offset = 14 + len(header) + len(extra)
    return b"BM" + struct.pack("<IHHI", offset + len(pixels), 0, 0, offset) + header + extra + pixels


def bmp_rows(samples: NDArray[Any]) -> bytes:
    lines = [row.tobytes() for row in samples[::-1]]
    return b"".join(line + bytes(-len(line) % 4) for line in lines)


def pillow(data: bytes) -> NDArray[np.uint8]:
    """The truth: as Pillow sees the picture, upright, without alpha."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    through = "RGBA" if "transparency" in image.info else "RGB"
    return np.array(image.convert(through).convert("RGB"))


BGR = np.ascontiguousarray(RGB[..., ::-1])
GREYS = b"".join(bytes([i, 255 - i, i * 7 % 256, 0]) for i in range(256))
FIVE = (RGB >> 3).astype("<u2")
RLE8 = b"".join(b"".join(bytes([1, v]) for v in row) + b"\0\0" for row in RGB[::-1, :, 0]) + b"\0\1"

EXACT = {
    "png": save(PHOTO, "PNG"),
    "png grey": save(PHOTO.convert("L"), "PNG"),
    "png 1-bit": save(PHOTO.convert("1"), "PNG"),
    "png palette": save(PALETTE, "PNG"),
    "png palette 2-bit": save(PHOTO.quantize(4), "PNG", bits=2),
    "png alpha": save(ALPHA, "PNG"),
    "png grey alpha": save(ALPHA.convert("LA"), "PNG"),
    "png palette transparent": save(PALETTE, "PNG", transparency=bytes(range(0, 160, 10))),
    "png grey transparent": save(PHOTO.convert("L"), "PNG", transparency=7),
    "png one apng frame": save(PHOTO, "PNG", save_all=True),
    "webp lossless": save(PHOTO, "WEBP", lossless=True),
    "webp alpha": save(ALPHA, "WEBP", lossless=True, exact=True),
    "bmp": save(PHOTO, "BMP"),
    "bmp grey": save(PHOTO.convert("L"), "BMP"),
    "bmp 1-bit": save(PHOTO.convert("1"), "BMP"),
    "bmp palette": save(PALETTE, "BMP"),
    "bmp 4-bit palette": bmp(4, bytes(i * i % 251 for i in range(28 * HEIGHT)), extra=GREYS[:64]),
    "bmp coloured palette": bmp(8, bmp_rows(RGB[..., 0]), extra=GREYS),
    "bmp rle": bmp(8, RLE8, compression=1, extra=GREYS),
    "bmp alpha": save(ALPHA, "BMP"),
    "bmp top down": bmp(24, bmp_rows(BGR[::-1]), flip=-1),
    "bmp 32-bit": bmp(32, bmp_rows(np.dstack([BGR, RGB[..., :1]]))),
    "bmp 32-bit masks, red last": bmp(
        32,
        bmp_rows(np.dstack([RGB, RGB[..., :1]])),
        compression=3,
        extra=struct.pack("<4I", 0xFF, 0xFF00, 0xFF0000, 0xFF000000),
    ),
    "bmp 555": bmp(16, bmp_rows(FIVE[..., 0] << 10 | FIVE[..., 1] << 5 | FIVE[..., 2])),
    "bmp 565": bmp(
        16,
        bmp_rows(FIVE[..., 0] << 11 | FIVE[..., 1] << 6 | FIVE[..., 2]),
        compression=3,
        extra=struct.pack("<3I", 0xF800, 0x7E0, 0x1F),
    ),
    "tiff alpha": save(ALPHA, "TIFF"),
    "tiff grey alpha": save(ALPHA.convert("LA"), "TIFF"),
    "tiff alpha lzw": save(ALPHA, "TIFF", compression="tiff_lzw"),
    "tiff palette": save(PALETTE, "TIFF"),
    "tiff 1-bit": save(PHOTO.convert("1"), "TIFF"),
    "tiff 1-bit fax": save(PHOTO.convert("1"), "TIFF", compression="group4"),
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
    image, truth = decode(ALL[name]), pillow(ALL[name])
    assert image.shape == truth.shape
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.flags.writeable
    # Rounding is left to the codec where it is lossy, and in the conversion of CMYK.
    tolerance = 0 if name in EXACT else 2
    assert np.abs(image.astype(int) - truth).max() <= tolerance


@pytest.mark.parametrize(
    "name", ["png", "png alpha", "webp lossless", "webp alpha", "bmp", "bmp 32-bit", "tiff alpha"]
)
def test_a_lossless_picture_comes_back_as_it_was(name: str) -> None:
    np.testing.assert_array_equal(decode(EXACT[name]), RGB)


GREY = DEEP[..., :1]
OPAQUE = np.dstack([DEEP, GREY])


@pytest.mark.parametrize(
    ("data", "samples"),
    [
        (png_of(GREY, 0), GREY),
        (png_of(np.dstack([GREY, GREY]), 4), GREY),
        (png_of(DEEP, 2), DEEP),
        (png_of(OPAQUE, 6), DEEP),
        (save(Image.fromarray(GREY[..., 0]), "PNG"), GREY),
        (save(Image.fromarray(GREY[..., 0]), "TIFF"), GREY),
        (save(Image.fromarray(GREY[..., 0]), "TIFF", compression="tiff_lzw"), GREY),
        (save(Image.fromarray(GREY[..., 0].astype(">u2")), "TIFF"), GREY),
        (tiff_with(save(Image.fromarray(GREY[..., 0]), "TIFF"), {262: 0}), 65535 - GREY),
        (cv2.imencode(".tif", DEEP[..., ::-1])[1].tobytes(), DEEP),
        (cv2.imencode(".tif", OPAQUE[..., [2, 1, 0, 3]])[1].tobytes(), DEEP),
    ],
    ids=[
        "png grey",
        "png grey alpha",
        "png rgb",
        "png rgb alpha",
        "pillow png",
        "tiff",
        "tiff lzw",
        "tiff big-endian",
        "tiff zero is white",
        "tiff rgb",
        "tiff rgb alpha",
    ],
)
def test_of_sixteen_bits_the_high_byte_is_kept(data: bytes, samples: NDArray[np.uint16]) -> None:
    np.testing.assert_array_equal(decode(data), np.broadcast_to(samples >> 8, RGB.shape))


def test_of_twelve_bits_the_high_byte_is_kept() -> None:
    values = np.arange(64 * 40).reshape(40, 64)  # twelve bits each, two in three bytes
    first, second = values[:, ::2], values[:, 1::2]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=-1)
    eight_bit = Image.fromarray(packed.astype(np.uint8).reshape(40, 96))
    image = decode(tiff_with(save(eight_bit, "TIFF"), {256: 64, 258: 12}))
    np.testing.assert_array_equal(image[..., 1], values >> 4)


def test_cmyk_is_converted_whether_or_not_the_file_says_it_is_inverted() -> None:
    marker = CMYK.index(b"\xff\xee")
    plain = CMYK[:marker] + CMYK[marker + 16 :]
    assert b"Adobe" not in plain
    for data in (CMYK, plain):
        assert np.abs(decode(data).astype(int) - pillow(data)).max() <= 2
    assert np.abs(decode(CMYK).astype(int) - RGB).mean() < 15


def oriented(kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    return save(PHOTO, kind, exif=exif, **options)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    data = oriented(kind, orientation)
    image, truth = decode(data), pillow(data)
    assert image.shape == truth.shape
    assert image.shape == ((WIDTH, HEIGHT, 3) if orientation > 4 else (HEIGHT, WIDTH, 3))
    assert np.abs(image.astype(int) - truth).max() <= (2 if kind == "JPEG" else 0)
    assert image.flags.c_contiguous
    assert image.flags.writeable


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_that_of_the_upright_picture(kind: str, orientation: int) -> None:
    data = oriented(kind, orientation)
    assert size_of(data) == decode(data).shape[:2]


def test_the_size_is_told_by_the_header_alone() -> None:
    assert size_of(claiming("png", 3000, 2000)) == (2000, 3000)
    with pytest.raises(TooLarge, match="60000 x 2 pixels"):
        size_of(claiming("png", 60_000, 2))
    with pytest.raises(UnsupportedFormat):
        size_of(b"text")


def test_orientation_behind_the_pixels_of_a_png_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = (b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in RGB)))
    end = (b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")), (b"IEND", b"")
    data = png(png_header(WIDTH, HEIGHT), pixels, *end)
    np.testing.assert_array_equal(decode(data), np.rot90(RGB, -1))
    np.testing.assert_array_equal(decode(data), pillow(data))


@pytest.mark.parametrize("orientation", [0, 9, 1000])
def test_an_orientation_that_does_not_exist_is_upright(orientation: int) -> None:
    np.testing.assert_array_equal(decode(oriented("PNG", orientation)), RGB)


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0rubbish"])
def test_damaged_exif_data_do_not_matter(exif: bytes) -> None:
    np.testing.assert_array_equal(decode(save(PHOTO, "PNG", exif=exif)), RGB)


@pytest.mark.parametrize("name", ALL)
def test_a_truncated_file_is_never_partly_filled(name: str) -> None:
    data = ALL[name]
    whole = decode(data)
    everywhere = range(0, len(data), 1 + len(data) // 150)
    for cut in {*range(120), *everywhere, *range(len(data) - 40, len(data))}:
        try:
            image = decode(data[:cut])
        except UnsupportedFormat:
            assert cut < 18  # shorter than the signature
        except Undecodable:
            pass
        else:
            # The last bytes may be padding, or say no more than that this is the end: without
            # them the picture is still all there.
            assert cut >= len(data) - 4, f"accepted with {cut} of {len(data)} bytes"
            assert name.startswith(("bmp", "tiff", "jpeg"))
            np.testing.assert_array_equal(image, whole)


@pytest.mark.parametrize("name", ALL)
def test_bytes_after_the_end_are_ignored(name: str) -> None:
    for tail in (b"\0", b"\xff\xd9 and then some", ALL[name]):
        np.testing.assert_array_equal(decode(ALL[name] + tail), decode(ALL[name]))


def test_the_first_picture_of_a_multi_picture_jpeg_is_taken() -> None:
    data = save(PHOTO, "MPO", save_all=True, append_images=[PHOTO.rotate(180)])
    assert np.abs(decode(data).astype(int) - pillow(data)).max() <= 2


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        bytes(1000),
        b"a text that someone named .png",
        b"BMW builds cars, and this is no bitmap, however it begins.",
        b"MM. II. RIFF",
        b"<!DOCTYPE html><html><body>404</body></html>",
        b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        b"%PDF-1.7 ...",
        b"PK\3\4 ...",
        b"RIFF\x24\0\0\0WAVEfmt ",
        b"\x89PNG\n\x1a\n",  # what a transfer as text makes of a PNG
        save(PHOTO, "GIF"),
        save(PHOTO, "PPM"),
        save(PHOTO, "ICO"),
        save(PHOTO, "JPEG2000"),
    ],
)
def test_what_is_none_of_the_formats_is_unsupported(data: bytes) -> None:
    with pytest.raises(UnsupportedFormat, match="not a PNG, JPEG, BMP, TIFF or WEBP picture: it"):
        decode(data)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_several_frames_are_refused(kind: str) -> None:
    data = save(PHOTO, kind, save_all=True, append_images=[PHOTO.rotate(180)])
    with pytest.raises(Undecodable, match="several frames or pages"):
        decode(data)


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
def test_pixels_of_another_kind_are_refused(data: bytes, what: str) -> None:
    with pytest.raises(Undecodable, match=what):
        decode(data)


def claiming(kind: str, width: int, height: int) -> bytes:
    """A small valid file whose header alone is changed to claim another size."""
    data = bytearray(ALL[kind])
    if kind == "png":
        return png(png_header(width, height), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    if kind == "bmp":
        struct.pack_into("<ii", data, 18, width, height)
    if kind == "jpeg":
        struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height, width)
    if kind.startswith("tiff"):
        return tiff_with(data, {256: width, 257: height, 278: height})
    return bytes(data)


SIZED = ["png", "bmp", "jpeg", "tiff RGB raw", "tiff RGB tiff_lzw"]


@pytest.mark.parametrize("kind", SIZED)
@pytest.mark.parametrize("size", [(60_000, 60_000), (16_385, 1), (1, 16_385), (7072, 7072)])
def test_a_header_that_claims_too_much_is_too_large(kind: str, size: tuple[int, int]) -> None:
    with pytest.raises(TooLarge, match=f"{size[0]} x {size[1]} pixels"):
        decode(claiming(kind, *size))


@pytest.mark.parametrize("kind", SIZED)
@pytest.mark.parametrize("size", [(0, HEIGHT), (WIDTH, 0), (0, 0)])
def test_zero_size_is_undecodable(kind: str, size: tuple[int, int]) -> None:
    with pytest.raises(Undecodable):
        decode(claiming(kind, *size))


@pytest.mark.parametrize("kind", [*SIZED, "webp"])
def test_limits_are_what_is_allowed_and_no_more(kind: str) -> None:
    data = ALL[kind]
    exactly = Limits(max_bytes=len(data), max_pixels=HEIGHT * WIDTH, max_side=WIDTH)
    assert decode(data, exactly).shape == RGB.shape
    for limits, what in [
        (Limits(max_bytes=len(data) - 1), f"larger than the {len(data) - 1:,} bytes"),
        (Limits(max_pixels=HEIGHT * WIDTH - 1), f"at most {HEIGHT * WIDTH - 1:,} pixels"),
        (Limits(max_side=WIDTH - 1), f"{WIDTH - 1} along a side"),
    ]:
        with pytest.raises(TooLarge, match=what):
            decode(data, limits)


def test_a_large_picture_within_the_limits_is_no_bomb() -> None:
    image = decode(save(Image.new("1", (10_000, 5_000), 1), "PNG"))  # 50 million pixels, 6 kB
    assert image.shape == (5_000, 10_000, 3)
    assert image.min() == 255


def costly_files() -> dict[str, bytes]:
    """Small files that would cost a decoder that trusts them gigabytes or minutes."""
    progressive = save(Image.new("L", (8000, 6000)), "JPEG", progressive=True)
    last_scan = progressive[progressive.rindex(b"\xff\xda") : -2]
    tags = {256: 64, 257: 64, 258: 8, 259: 1, 262: 1, 322: 60_000, 323: 60_000, 324: 8, 325: 9}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    # Sixty thousand strips, each of half a picture's rows, all of them the same bytes.
    side, many = 2048, 60_000
    strip = bytes(side * side // 16)
    places = 8 + len(strip)
    sizes = places + 4 * many
    strips = {256: side, 257: side, 258: 1, 259: 1, 262: 1, 273: places, 277: 1, 278: side // 2, 279: sizes}
    counts = {273: many, 279: many}
    fields = [struct.pack("<HHII", tag, 4, counts.get(tag, 1), value) for tag, value in strips.items()]
    return {
        "png": claiming("png", 60_000, 60_000),
        "png chunk": png(png_header(WIDTH, HEIGHT)) + b"\xff\xff\xff\x7fIDAT and so on",
        "bmp": claiming("bmp", 60_000, 60_000),
        "jpeg": claiming("jpeg", 65_000, 65_000),
        "jpeg scans": progressive[:-2] + last_scan * 10_000 + b"\xff\xd9",
        "tiff": claiming("tiff RGB tiff_lzw", 60_000, 60_000),
        "tiff tile": b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4),
        "tiff strips": b"II*\0"
        + struct.pack("<I", sizes + 4 * many)
        + strip
        + struct.pack("<I", 8) * many
        + struct.pack("<I", len(strip)) * many
        + struct.pack("<H", len(fields))
        + b"".join(fields)
        + bytes(4),
        "webp": b"RIFF\x40\0\0\0WEBPVP8X\x0a\0\0\0\2\0\0\0" + b"\xff" * 6 + bytes(46),
    }


def tiff_of_jpegs(jpegs: list[bytes], size: tuple[int, int], sizes: list[int] | None = None) -> bytes:
    """A TIFF with a plane in each JPEG, grey or CMYK; `sizes` is what it says of their bytes."""
    planes = len(jpegs)
    places = [8 + sum(map(len, jpegs[:i])) for i in range(planes)]
    pixels = {256: size[:1], 257: size[1:], 258: [8] * planes, 259: [7], 262: [5 if planes == 4 else 1]}
    strips = {273: places, 277: [planes], 278: size[1:], 279: sizes or list(map(len, jpegs)), 284: [2]}
    values = {**pixels, **strips}
    further = 8 + sum(map(len, jpegs))
    fields, rest = b"", b""
    for tag, numbers in values.items():
        packed = struct.pack(f"<{len(numbers)}I", *numbers)
        where = packed if len(numbers) == 1 else struct.pack("<I", further + len(rest))
        fields += struct.pack("<HHI", tag, 4, len(numbers)) + where
        rest += packed if len(numbers) > 1 else b""
    directory = struct.pack("<H", len(values)) + fields + bytes(4)
    return b"II*\0" + struct.pack("<I", further + len(rest)) + b"".join(jpegs) + rest + directory


class TestJpegsInTiff:
    GREY = PHOTO.convert("L")

    @pytest.mark.parametrize("planes", [1, 4])
    def test_sound_ones_are_read(self, planes: int) -> None:
        image = decode(tiff_of_jpegs([save(self.GREY, "JPEG", quality=95)] * planes, self.GREY.size))
        truth = np.asarray(self.GREY if planes == 1 else Image.merge("CMYK", [self.GREY] * 4).convert("RGB"))
        assert np.abs(image.astype(int) - truth.reshape(HEIGHT, WIDTH, -1)).max() < 12

    @pytest.mark.parametrize("planes", [1, 4])
    @pytest.mark.parametrize("sized", [True, False])
    def test_of_many_scans_are_not(self, planes: int, sized: bool) -> None:
        """Nor where the file does not say how many bytes there are, and libtiff takes all."""
        jpeg = save(self.GREY, "JPEG", progressive=True)
        begin = jpeg.rindex(b"\xff\xda")
        many = jpeg[:-2] + jpeg[begin:-2] * 90 + jpeg[-2:]
        jpegs = [*[save(self.GREY, "JPEG")] * (planes - 1), many]
        data = tiff_of_jpegs(jpegs, self.GREY.size, None if sized else [0] * planes)
        with pytest.raises(Undecodable, match=r"a JPEG of 9\d scans in it, more than 4, as progressive ones"):
            decode(data)

    def test_that_all_lie_in_the_same_bytes_are_not_looked_at_without_end(self) -> None:
        data = tiff_of_jpegs([save(self.GREY, "JPEG")] * 4, self.GREY.size, [0] * 4)
        with pytest.raises(Undecodable, match="more bytes together than a file may have"):
            decode(data, Limits(max_bytes=len(data)))

    @pytest.mark.parametrize("further", [324, 325])
    def test_that_have_tiles_too_are_not(self, further: int) -> None:
        """Decoders take the ones or the others, by the order of the tags."""
        data = tiff_of_jpegs([save(self.GREY, "JPEG")], self.GREY.size)
        tags = data.rindex(struct.pack("<HHI", 284, 4, 1))
        data = data[:tags] + struct.pack("<H", further) + data[tags + 2 :]
        with pytest.raises(Undecodable, match="either strips or tiles"):
            decode(data)


def test_what_a_header_hides_is_found() -> None:
    files = costly_files()
    with pytest.raises(TooLarge, match="A tile of the picture has 60000 x 60000 pixels"):
        decode(files["tiff tile"])
    with pytest.raises(Undecodable, match="cover the picture several times"):
        decode(files["tiff strips"])
    with pytest.raises(Undecodable, match=r"10,\d{3} scans, too many for its size"):
        decode(files["jpeg scans"])


def test_costly_files_cost_nothing(tmp_path: Path) -> None:
    files = costly_files()
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    # In a process of its own, whose peak of memory is not hidden under that of other tests.
    program = """
import resource, sys, time
from pathlib import Path
from flows.fastflow.images import ImageError, decode
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
for path in sorted(Path(sys.argv[1]).iterdir()):
    data = path.read_bytes()
    before, start = peak(), time.perf_counter()
    try:
        outcome = str(decode(data).shape)
    except ImageError as error:
        outcome = type(error).__name__
    print(path.name, outcome, peak() - before, time.perf_counter() - start, sep="\\t")
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert {line[0] for line in lines} == set(files)
    for name, outcome, megabytes, seconds in lines:
        assert outcome in {"TooLarge", "Undecodable"}, name
        assert int(megabytes) < 40, name
        assert float(seconds) < 2, name


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
def test_a_damaged_png_is_undecodable(name: str) -> None:
    with pytest.raises(Undecodable, match="truncated, damaged"):
        decode(damaged_pngs()[name])


def test_an_interrupted_jpeg_padded_with_zeros_is_undecodable() -> None:
    data = save(PHOTO.resize((400, 300)), "JPEG")
    with pytest.raises(Undecodable):
        decode(data[: len(data) // 2] + bytes(len(data) // 2))


Edit = tuple[int, int, bytes]


def edited(data: bytes, edits: list[Edit]) -> bytes:
    changed = bytearray(data)
    for at, length, new in edits:
        start = at % (len(changed) + 1)
        changed[start : start + length] = new
    return bytes(changed)


EDITS = st.lists(
    st.tuples(st.integers(0, 400) | st.integers(0, 10**6), st.integers(0, 8), st.binary(max_size=8)),
    min_size=1,
    max_size=6,
)


@settings(max_examples=600, derandomize=True)
@given(name=st.sampled_from(sorted(ALL)), edits=EDITS)
def test_whatever_the_bytes_are_a_picture_or_an_image_error_comes_out(name: str, edits: list[Edit]) -> None:
    with contextlib.suppress(ImageError):
        image = decode(edited(ALL[name], edits))
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert image.shape[2] == 3
        assert image.flags.c_contiguous
        assert image.flags.writeable


def test_pillows_warnings_stay_inside() -> None:
    data = tiff_with(EXACT["tiff RGB raw"], {262: 2}).replace(
        struct.pack("<HHI", 278, 4, 1), struct.pack("<HHI", 278, 4, 2)
    )
    with pytest.warns(UserWarning, match="tag 278 had too many entries"):
        Image.open(io.BytesIO(data))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        decode(data)
        decode(ALL["png"])
    assert not seen


def test_the_warnings_of_others_are_left_alone() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")  # each warning once
        for _ in range(3):
            decode(ALL["png"])
            warnings.warn("not of Pillow", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in seen] == ["not of Pillow"]


def outcome(data: bytes) -> NDArray[np.uint8] | str:
    try:
        return decode(data)
    except ImageError as error:
        return str(error)


def test_several_threads_decode_at_once() -> None:
    files = [*ALL.values(), *damaged_pngs().values(), b"", claiming("png", 60_000, 60_000)] * 4
    alone = [outcome(data) for data in files]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(outcome, files))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_read_is_decode_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "a picture.jpg"  # the content decides, not the name
    file.write_bytes(EXACT["png"])
    np.testing.assert_array_equal(read(file), RGB)


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"", UnsupportedFormat), (EXACT["png"][:99], Undecodable), (EXACT["png"], TooLarge)],
)
def test_read_names_the_file_that_is_bad(tmp_path: Path, content: bytes, error: type[ImageError]) -> None:
    file = tmp_path / "part 7.png"
    file.write_bytes(content)
    with pytest.raises(error, match=r"part 7\.png: The"):
        read(file, Limits(max_bytes=len(EXACT["png"]) - 1))


def test_read_of_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read(tmp_path / "nowhere.png")


def test_the_suffixes_are_those_of_the_formats() -> None:
    formats = {"PNG", "JPEG", "BMP", "TIFF", "WEBP"}
    known = Image.registered_extensions()
    assert {known[suffix] for suffix in IMAGE_SUFFIXES} == formats


@pytest.mark.parametrize("kind", ["png", "tif"])
@pytest.mark.parametrize("bits", [1, 10, 12, 16])
def test_how_many_bits_a_deep_grey_picture_uses(kind: str, bits: int) -> None:
    samples = np.zeros((HEIGHT, WIDTH), np.uint16)
    samples[3, 5] = 2**bits - 1
    encoded = cv2.imencode(f".{kind}", samples)[1].tobytes()
    assert bits_used(encoded) == (bits, 0)  # it may be hot
    samples[3, 6] = 2**bits - 1
    assert bits_used(cv2.imencode(f".{kind}", samples)[1].tobytes()) == (bits, bits)
    assert int(decode(encoded).max()) == (2**bits - 1) >> 8


@pytest.mark.parametrize("kind", ["png", "tif"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_of_fewer_bits_the_upper_8_are_kept_and_more_is_white(kind: str, bits: int) -> None:
    upper, below = RGB[..., 0].astype(np.uint16), (RGB[..., 1] % 2 ** (bits - 8)).astype(np.uint16)
    samples = upper << (bits - 8) | below
    samples[0, :2] = 2**bits, 2**16 - 1
    wanted = RGB[..., 0].copy()
    wanted[0, :2] = 255
    found = decode(cv2.imencode(f".{kind}", samples)[1].tobytes(), sample_bits=bits)
    assert found.dtype == np.uint8
    assert found.tolist() == np.repeat(wanted[..., None], 3, 2).tolist()


@pytest.mark.parametrize("channels", [3, 4])
def test_of_fewer_bits_in_colour(channels: int) -> None:
    samples = np.dstack([RGB.astype(np.uint16) << 4 | 5, np.full((HEIGHT, WIDTH), 9, np.uint16)])
    found = decode(png_of(samples[..., :channels], {3: 2, 4: 6}[channels]), sample_bits=12)
    assert found.tolist() == RGB.tolist()


def test_of_fewer_bits_where_zero_is_white() -> None:
    samples = Image.fromarray(RGB[..., 0].astype(np.uint16) << 4)
    found = decode(tiff_with(save(samples, "TIFF"), {262: 0}), sample_bits=12)
    assert found[..., 0].tolist() == (255 - RGB[..., 0]).tolist()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
def test_a_picture_of_8_bits_is_the_same_whatever_deeper_ones_hold(kind: str) -> None:
    data = save(PHOTO, kind)
    assert decode(data, sample_bits=10).tolist() == decode(data).tolist()


def test_a_tiff_of_which_the_high_byte_alone_would_come_is_refused() -> None:
    data = cv2.imencode(".tif", DEEP)[1].tobytes()
    with pytest.raises(Undecodable, match="several channels of 16 bits, 12 of them used, is not read; send"):
        decode(data, sample_bits=12)
    assert decode(data).shape == (HEIGHT, WIDTH, 3)


def test_other_pictures_have_no_bits_to_count() -> None:
    for data in (save(PHOTO, "PNG"), save(PHOTO, "TIFF"), save(PHOTO, "JPEG"), save(PALETTE, "PNG"), b"BM"):
        assert bits_used(data) is None
    assert bits_used(cv2.imencode(".tif", DEEP)[1].tobytes()) is None


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_how_many_bits_the_colours_of_a_deep_png_use(channels: int) -> None:
    """Whatever its transparency has."""
    samples = np.dstack(
        [np.full((HEIGHT, WIDTH, 3), 1000, np.uint16), np.full((HEIGHT, WIDTH), 65535, np.uint16)]
    )
    some = samples[..., [0, 3]] if channels == 2 else samples[..., :channels]
    assert bits_used(png_of(some, {2: 4, 3: 2, 4: 6}[channels])) == (10, 10)


def test_a_tiff_of_packed_12_bits_is_taken_as_such() -> None:
    rows = np.full((HEIGHT, 2 * 27), 0, np.uint16)
    rows[:, :WIDTH] = RGB[..., 0].astype(np.uint16) << 4
    pairs = rows.reshape(-1, 2)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1)
    strip = packed.astype(np.uint8).reshape(HEIGHT, -1)[:, : (WIDTH * 12 + 7) // 8].tobytes()
    tags = [(256, WIDTH), (257, HEIGHT), (258, 12), (259, 1), (262, 1), (273, 0), (277, 1), (278, HEIGHT)]
    tags.append((279, len(strip)))
    start = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, start if tag == 273 else value) for tag, value in tags)
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + strip
    assert (
        decode(data)[..., 0].tolist() == decode(data, sample_bits=12)[..., 0].tolist() == RGB[..., 0].tolist()
    )
    assert bits_used(data) is None


def test_a_file_of_ones_own_may_be_larger_than_an_upload(tmp_path: Path) -> None:
    """12 megapixels in colour, uncompressed, as a camera writes them."""
    pixels = np.zeros((3000, 4096, 3), np.uint8)
    pixels[0, 0] = 9
    path = tmp_path / "large.bmp"
    assert cv2.imwrite(str(path), pixels)
    assert path.stat().st_size > DEFAULT_LIMITS.max_bytes
    assert read(path)[0, 0].tolist() == [9, 9, 9]
    with pytest.raises(TooLarge, match=r"large\.bmp: The file is larger than the 33,554,432 bytes"):
        read(path, DEFAULT_LIMITS)


def test_no_more_is_read_of_a_file_than_shows_that_it_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "endless.png"
    with path.open("wb") as file:
        file.truncate(2**40)
    limits = Limits(max_bytes=1000)
    assert len(read_bytes(path, limits)) == 1001
    with pytest.raises(TooLarge):
        read(path, limits)
    assert FILE_LIMITS.max_pixels == DEFAULT_LIMITS.max_pixels
