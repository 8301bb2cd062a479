"""Files that would cost a decoder minutes or gigabytes are refused or stripped; honest ones lose no pixel."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from flows.fastflow.imaging.containers.png import MAX_PIXEL_CHUNKS
from flows.fastflow.imaging.containers.strip_metadata import strip_metadata
from flows.fastflow.imaging.containers.stripped_image import MAX_SEGMENTS, StrippedImage
from flows.fastflow.imaging.decoder import decode_image
from flows.fastflow.imaging.image_errors import UndecodableError
from tests.flows.fastflow.saving import save

HEIGHT, WIDTH = 37, 53
RGB = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
PHOTO = Image.fromarray(RGB)
PNG, JPEG = save(PHOTO, "PNG"), save(PHOTO, "JPEG")
WEBP = save(PHOTO, "WEBP", lossless=True)


def chunk(name: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def segment(marker: int, body: bytes = b"") -> bytes:
    return b"\xff" + struct.pack(">BH", marker, 2 + len(body)) + body


def directory(tag: int, kind: int, count: int, value: int, order: str = "<") -> bytes:
    """A TIFF file, or EXIF data, of one tag."""
    head = {"<": b"II*\0", ">": b"MM\0*"}[order]
    stored = (
        struct.pack(order + "HH", value, 0) if (kind, count) == (3, 1) else struct.pack(order + "I", value)
    )
    return head + struct.pack(order + "IHHHI", 8, 1, tag, kind, count) + stored + bytes(4)


def exif(orientation: int, order: str = "<", kind: int = 3) -> bytes:
    return directory(0x0112, kind, 1, orientation, order)


def tiff(*entries: tuple[int, int, int, int], data: bytes = b"") -> bytes:
    """A grey image of 64 x 64 with further tags (tag, kind, count, value or offset), its pixels all 7."""
    base = [(256, 4, 1, 64), (257, 4, 1, 64), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)]
    own = {tag for tag, *_ in entries}
    strips = [(273, 4, 1, 8), (278, 4, 1, 64), (279, 4, 1, 4096)]
    tags = sorted(entry for entry in [*base, *strips] if entry[0] not in own) + list(entries)
    packed = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<I", 8 + 4096) + b"\7" * 4096
    return head + struct.pack("<H", len(tags)) + packed + bytes(4) + data


def png_with(*chunks: bytes) -> bytes:
    return PNG[:33] + b"".join(chunks) + PNG[33:]


def jpeg_with(*segments: bytes) -> bytes:
    return JPEG[:2] + b"".join(segments) + JPEG[2:]


def webp_with(body: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", len(WEBP) - 8 + len(body)) + WEBP[8:] + body


def webp_exif(data: bytes) -> bytes:
    whole = save(PHOTO, "WEBP", lossless=True, exif=b"II*\0")
    body = whole[12 : whole.index(b"EXIF")] + b"EXIF" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


HOSTILE: dict[str, tuple[str, bytes, str]] = {
    "jpeg fill": ("JPEG", jpeg_with(b"\xff" * 5000), "4,096 bytes of filling"),
    "jpeg restarts": ("JPEG", jpeg_with(b"\xff\xd0" * (MAX_SEGMENTS + 1)), "1,024 segments"),
    "jpeg comments": ("JPEG", jpeg_with(segment(0xFE) * (MAX_SEGMENTS + 1)), "1,024 segments"),
    "jpeg tables": ("JPEG", jpeg_with(segment(0xDB, bytes(65) * 1000) * 3), "131,072 bytes of tables"),
    "png texts": ("PNG", png_with(chunk(b"zTXt") * (MAX_SEGMENTS + 1)), "1,024 chunks beside"),
    "png pixels": ("PNG", png_with(chunk(b"IDAT") * (MAX_PIXEL_CHUNKS + 1)), "pixels in more than 32,768"),
    "webp": ("WEBP", webp_with(b"abcd\0\0\0\0" * (MAX_SEGMENTS + 1)), "1,024 chunks"),
    "tiff tags": ("TIFF", tiff(*[(1000 + i, 3, 1, 0) for i in range(1200)]), "1,209 tags, more than 1,024"),
    "tiff values": ("TIFF", tiff((258, 4, 2**20, 5000), data=bytes(2**22)), "values in tag 258"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_is_rejected(name: str) -> None:
    kind, data, what = HOSTILE[name]
    with pytest.raises(UndecodableError, match=rf"The {kind} image has .*{what}.*; no camera .* as PNG"):
        decode_image(data)


@pytest.mark.parametrize(
    ("kind", "data", "plain"),
    [
        (
            "JPEG",
            jpeg_with(segment(0xE1, b"Exif\0\0" + directory(0x0112, 5, 8000, 26) + bytes(64_000))),
            JPEG,
        ),
        ("PNG", png_with(chunk(b"eXIf", directory(0x0112, 5, 8000, 26) + bytes(64_000))), PNG),
        ("PNG", png_with(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**24), 9)) * 60), PNG),
        ("PNG", png_with(chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2**24), 9))), PNG),
    ],
    ids=["jpeg exif", "png exif", "png texts", "png profile"],
)
def test_metadata_never_reach_a_decoder(kind: str, data: bytes, plain: bytes) -> None:
    stripped = strip_metadata(kind, data)
    assert len(stripped.data) <= len(plain)
    assert stripped.orientation == 1
    np.testing.assert_array_equal(decode_image(data), decode_image(plain))


@pytest.mark.parametrize("tag", [282, 305, 34665])
def test_tags_that_say_nothing_on_pixels_are_gone(tag: int) -> None:
    data = tiff((tag, 5, 2**16, 5000), data=bytes(2**20))
    stripped = strip_metadata("TIFF", data).data
    assert len(stripped) == len(data)
    with Image.open(io.BytesIO(stripped)) as image:
        assert tag not in set(image.tag_v2)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(decode_image(data), np.full((64, 64, 3), 7))


def test_odd_chunks_of_png_leave_no_line_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    odd = [chunk(b"zTXt"), chunk(b"sBIT"), chunk(b"iCCP", b"x"), chunk(b"eXIf", b"x"), chunk(b"tIME")]
    np.testing.assert_array_equal(decode_image(png_with(*odd * 100)), RGB)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [3, 4])
@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
def test_orientation_is_read_from_exif(order: str, kind: int, prefix: bytes) -> None:
    data = prefix + exif(6, order, kind)
    files = {
        "PNG": png_with(chunk(b"eXIf", data)),
        "JPEG": jpeg_with(segment(0xE1, b"Exif\0\0" + data.removeprefix(b"Exif\0\0"))),
        "WEBP": webp_exif(data),
    }
    for name, file in files.items():
        assert strip_metadata(name, file).orientation == 6
        assert decode_image(file).shape == (WIDTH, HEIGHT, 3)


@pytest.mark.parametrize(
    "data",
    [b"", b"rubbish", b"II*\0\xff\xff\xff\xff", exif(6)[:15], exif(0), exif(9), directory(0x0112, 3, 2, 6)],
)
def test_exif_without_a_valid_orientation_is_upright(data: bytes) -> None:
    assert strip_metadata("PNG", png_with(chunk(b"eXIf", data))).orientation == 1


def test_exif_of_several_segments_is_one() -> None:
    data = b"II*\0" + struct.pack("<I", 70_000) + bytes(70_000 - 8) + exif(8)[8:]
    parts = (segment(0xE1, b"Exif\0\0" + part) for part in (data[:65_000], data[65_000:]))
    assert strip_metadata("JPEG", jpeg_with(*parts)).orientation == 8


@pytest.mark.parametrize("big", [False, True])
def test_orientation_of_a_tiff_is_applied_once(big: bool) -> None:
    data = save(PHOTO, "TIFF", tiffinfo={274: 6}, big_tiff=big)
    assert strip_metadata("TIFF", data).orientation == 6
    np.testing.assert_array_equal(decode_image(data), np.rot90(RGB, -1))


@pytest.mark.parametrize(
    "chunks",
    [
        chunk(b"ABCD"),
        chunk(b"tEXt", b"a\0b")[:-1] + b"x",
        chunk(b"PLTE", bytes(771)),
        chunk(b"PLTE", bytes(3)) * 2,
        chunk(b"IDAT", b"x") + chunk(b"tEXt"),
    ],
    ids=["critical", "checksum", "long palette", "two palettes", "parted pixels"],
)
def test_chunks_that_the_specification_rules_out(chunks: bytes) -> None:
    with pytest.raises(UndecodableError, match="truncated, damaged"):
        decode_image(png_with(chunks))


@pytest.mark.parametrize(("frames", "animated"), [(0, False), (1, False), (2, True)])
def test_animation_is_seen_though_stripped(frames: int, animated: bool) -> None:
    control = chunk(b"acTL", struct.pack(">II", frames, 0))
    assert strip_metadata("PNG", png_with(control, chunk(b"fcTL", bytes(26)))).is_animated is animated


def test_markers_that_have_no_place_before_the_pixels() -> None:
    with pytest.raises(UndecodableError, match="truncated, damaged"):
        decode_image(jpeg_with(segment(0xD9, bytes(8))))


def with_metadata() -> dict[str, Any]:
    texts = PngInfo()
    texts.add_text("Comment", "x" * 5000, zip=True)
    texts.add(b"gAMA", struct.pack(">I", 45_455))
    texts.add(b"vpAg", bytes(9), after_idat=True)
    camera = Image.Exif()
    camera.update({0x010F: "maker", 0x011A: 300.0, 0x9C9C: bytes(20_000)})
    return {"icc_profile": bytes(range(256)) * 600, "exif": camera.tobytes(), "pnginfo": texts}


@pytest.mark.parametrize("extra", [{}, with_metadata()], ids=["bare", "with metadata"])
@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("PNG", "RGB", {}),
        ("PNG", "P", {}),
        ("PNG", "RGBA", {}),
        ("TIFF", "L", {}),
        ("TIFF", "1", {"compression": "group4"}),
        ("TIFF", "RGB", {"compression": "jpeg"}),
        ("TIFF", "RGB", {"strip_size": 400}),
        ("TIFF", "CMYK", {"big_tiff": True, "compression": "tiff_lzw"}),
        ("JPEG", "RGB", {"progressive": True, "comment": "c" * 900}),
        ("JPEG", "CMYK", {}),
        ("JPEG", "RGB", {"keep_rgb": True}),
        ("WEBP", "RGBA", {"lossless": True}),
    ],
)
def test_honest_image_keeps_its_pixels(
    kind: str, mode: str, options: dict[str, Any], extra: dict[str, Any]
) -> None:
    image = PHOTO.convert(mode)
    data = save(image, kind, **options, **extra)
    stripped = strip_metadata(kind, data)
    assert len(stripped.data) <= len(data)
    with Image.open(io.BytesIO(data)) as before, Image.open(io.BytesIO(stripped.data)) as after:
        assert before.mode == after.mode
        assert before.tobytes() == after.tobytes()
    np.testing.assert_array_equal(decode_image(data), decode_image(save(image, kind, **options)))


def test_bare_file_is_not_copied() -> None:
    assert strip_metadata("PNG", PNG).data is PNG
    bmp = save(PHOTO, "BMP")
    assert strip_metadata("BMP", bmp) == StrippedImage(bmp)
