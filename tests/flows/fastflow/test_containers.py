"""Files that would cost a decoder minutes or gigabytes are refused or stripped; honest ones lose no pixel."""

from __future__ import annotations

import contextlib
import io
import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from flows.fastflow.containers import Refused, Stripped, strip
from flows.fastflow.containers.jpeg import MAX_FILL, MAX_TABLES
from flows.fastflow.containers.png import MAX_PIXEL_CHUNKS
from flows.fastflow.containers.stripped import MAX_SEGMENTS
from flows.fastflow.containers.tiff import MAX_TAGS
from flows.fastflow.images import ImageError, Undecodable, decode
from tests.flows.fastflow.saving import save

HEIGHT, WIDTH = 37, 53
RGB = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
PHOTO = Image.fromarray(RGB)
FORMATS = ["PNG", "JPEG", "TIFF", "WEBP"]
MEGABYTES = 4 * 2**20  # the size of a hostile file here


def chunk(name: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def segment(marker: int, body: bytes = b"") -> bytes:
    return b"\xff" + struct.pack(">BH", marker, 2 + len(body)) + body


def many(part: bytes) -> bytes:
    return part * (MEGABYTES // len(part))


def directory(tag: int, kind: int, count: int, value: int, order: str = "<") -> bytes:
    """A TIFF file, or EXIF data, of one tag."""
    head = {"<": b"II*\0", ">": b"MM\0*"}[order]
    stored = (
        struct.pack(order + "HH", value, 0) if (kind, count) == (3, 1) else struct.pack(order + "I", value)
    )
    return head + struct.pack(order + "IHHHI", 8, 1, tag, kind, count) + stored + bytes(4)


def tiff(*entries: tuple[int, int, int, int], data: bytes = b"") -> bytes:
    """A grey picture of 64 x 64 with further tags (tag, kind, count, value or offset), its pixels all 7."""
    base = [(256, 4, 1, 64), (257, 4, 1, 64), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)]
    own = {tag for tag, *_ in entries}
    strips = [(273, 4, 1, 8), (278, 4, 1, 64), (279, 4, 1, 4096)]
    tags = sorted(entry for entry in [*base, *strips] if entry[0] not in own) + list(entries)
    head = b"II*\0" + struct.pack("<I", 8 + 4096) + b"\7" * 4096
    return (
        head
        + struct.pack("<H", len(tags))
        + b"".join(struct.pack("<HHII", *tag) for tag in tags)
        + bytes(4)
        + data
    )


PNG, JPEG = save(PHOTO, "PNG"), save(PHOTO, "JPEG")
WEBP = save(PHOTO, "WEBP", lossless=True)
MANY_RATIONALS = np.random.default_rng(0).integers(2**31, 2**32, MEGABYTES // 4, np.uint32).tobytes()


def png_with(*chunks: bytes) -> bytes:
    return PNG[:33] + b"".join(chunks) + PNG[33:]


def jpeg_with(*segments: bytes) -> bytes:
    return JPEG[:2] + b"".join(segments) + JPEG[2:]


def webp_with(body: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", len(WEBP) - 8 + len(body)) + WEBP[8:] + body


# What is refused, with the bytes that are enough to see why.
HOSTILE: dict[str, tuple[str, bytes, int, str]] = {
    "jpeg fill": ("JPEG", jpeg_with(many(b"\xff")), MAX_FILL + 10, "4,096 bytes of filling"),
    "jpeg rubbish": (
        "JPEG",
        jpeg_with(b"\xff\xfe\0\2", many(b"\0")),
        MAX_FILL + 10,
        "4,096 bytes of filling",
    ),
    "jpeg stuffed zeros": ("JPEG", jpeg_with(many(b"\xff\0")), MAX_FILL + 10, "4,096 bytes of filling"),
    "jpeg restarts": ("JPEG", jpeg_with(many(b"\xff\xd0")), 2 + MAX_SEGMENTS * 2, "1,024 segments"),
    "jpeg tables": (
        "JPEG",
        jpeg_with(many(segment(0xDB, bytes(65) * 1000))),
        3 * 65004,
        "131,072 bytes of tables",
    ),
    "png unknown": ("PNG", png_with(many(chunk(b"abCd"))), 33 + MAX_SEGMENTS * 12, "1,024 chunks beside"),
    "png pixels": (
        "PNG",
        png_with(many(chunk(b"IDAT"))),
        45 + MAX_PIXEL_CHUNKS * 12,
        "pixels in more than 32,768",
    ),
    "png frames": (
        "PNG",
        png_with(many(chunk(b"fdAT"))),
        45 + MAX_PIXEL_CHUNKS * 12,
        "pixels in more than 32,768",
    ),
    "webp": ("WEBP", webp_with(many(b"abcd\0\0\0\0")), len(WEBP) + MAX_SEGMENTS * 8, "1,024 chunks"),
    "tiff tags": (
        "TIFF",
        tiff(*[(1000 + i, 3, 1, 0) for i in range(60_000)]),
        4106,
        "60,009 tags, more than 1,024",
    ),
    **{
        f"jpeg {marker:x}": ("JPEG", jpeg_with(many(segment(marker))), 2 + MAX_SEGMENTS * 4, "1,024 segments")
        for marker in (0xE1, 0xE2, 0xED, 0xEF, 0xFE, 0xDB, 0xC4)
    },
    **{
        f"png {name!r}": ("PNG", png_with(many(chunk(name))), 33 + MAX_SEGMENTS * 12, "1,024 chunks beside")
        for name in (b"tEXt", b"zTXt", b"iTXt", b"sBIT", b"iCCP", b"eXIf", b"gAMA")
    },
    **{
        f"tiff {tag}": (
            "TIFF",
            tiff((tag, 4, MEGABYTES // 4, 5000), data=MANY_RATIONALS),
            5000,
            f"values in tag {tag}",
        )
        for tag in (256, 258, 273, 279, 320, 324, 338, 339, 532)
    },
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused(name: str) -> None:
    kind, data, _, what = HOSTILE[name]
    with pytest.raises(Undecodable, match=rf"The {kind} picture has .*{what}.*; no camera .* anew as PNG"):
        decode(data)


@pytest.mark.parametrize("name", HOSTILE)
def test_no_more_is_looked_at_than_is_needed_to_refuse(name: str) -> None:
    kind, data, enough, what = HOSTILE[name]
    start = data[: enough + 100]
    if kind == "WEBP":
        start = start[:4] + struct.pack("<I", len(start) - 8) + start[8:]
    with pytest.raises(Refused, match=what):
        strip(kind, start)


@pytest.mark.parametrize("name", HOSTILE)
def test_refusing_takes_no_memory(name: str) -> None:
    kind, data, _, _ = HOSTILE[name]
    tracemalloc.start()
    with pytest.raises(Refused):
        strip(kind, data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * 2**20 if "pixels" in name or "frames" in name else peak < 2**20


def exif_of(size: int) -> bytes:
    """EXIF data in which nearly all is one value of the orientation: fractions, as no camera writes it."""
    return directory(0x0112, 5, size // 8, 26) + MANY_RATIONALS[:size]


def app1(exif: bytes) -> bytes:
    return b"".join(segment(0xE1, b"Exif\0\0" + exif[i : i + 65_000]) for i in range(0, len(exif), 65_000))


def webp_exif(exif: bytes) -> bytes:
    whole = save(PHOTO, "WEBP", lossless=True, exif=b"II*\0")
    body = whole[12 : whole.index(b"EXIF")] + b"EXIF" + struct.pack("<I", len(exif)) + exif
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


# What a picture may hold without a decoder ever seeing it.
STRIPPED: dict[str, tuple[str, bytes]] = {
    "jpeg exif": ("JPEG", jpeg_with(app1(exif_of(MEGABYTES)))),
    "jpeg exif without jfif": ("JPEG", JPEG[:2] + app1(exif_of(MEGABYTES)) + JPEG[20:]),
    "jpeg resolution": (
        "JPEG",
        JPEG[:2] + app1(directory(0x011A, 5, 8000, 26) + MANY_RATIONALS[:64_000]) + JPEG[20:],
    ),
    "png exif": ("PNG", png_with(chunk(b"eXIf", exif_of(MEGABYTES)))),
    "png text": ("PNG", png_with(chunk(b"tEXt", b"Raw profile type exif\0\nexif\n9\n" + b"4\n" * 2**21))),
    "png bombs": ("PNG", png_with(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**24), 9)) * 60)),
    "png profiles": ("PNG", png_with(chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2**24), 9)))),
}


@pytest.mark.parametrize("name", STRIPPED)
def test_metadata_never_reach_a_decoder(name: str) -> None:
    kind, data = STRIPPED[name]
    plain = {"JPEG": JPEG, "PNG": PNG}[kind]
    stripped = strip(kind, data)
    assert len(stripped.data) <= len(plain)
    assert stripped.orientation == 1
    np.testing.assert_array_equal(decode(data), decode(plain))


@pytest.mark.parametrize("tag", [282, 283, 274, 305, 700, 34665, 34675, 34853, 50839])
def test_tags_that_say_nothing_on_pixels_are_gone(tag: int) -> None:
    data = tiff((tag, 5, MEGABYTES // 8, 5000), data=bytes(1000) + MANY_RATIONALS)
    stripped = strip("TIFF", data).data
    assert len(stripped) == len(data)
    with Image.open(io.BytesIO(stripped)) as image:
        assert tag not in set(image.tag_v2)  # type: ignore[attr-defined]
    tracemalloc.start()
    pixels = decode(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(pixels, np.full((64, 64, 3), 7))
    assert peak < len(data) + 2**20  # one copy of the file, and no objects


def test_an_exif_value_of_webp_is_never_parsed() -> None:
    np.testing.assert_array_equal(decode(webp_exif(exif_of(MEGABYTES))), RGB)


def test_odd_chunks_of_png_leave_no_line_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    odd = [
        chunk(b"zTXt"),
        chunk(b"sBIT"),
        chunk(b"iCCP", b"x"),
        chunk(b"eXIf", b"x"),
        chunk(b"tIME"),
        chunk(b"hIST"),
    ]
    np.testing.assert_array_equal(decode(png_with(*odd * 100)), RGB)
    twice = png_with(chunk(b"tRNS", b"\0\1\0\1\0\1") * 900)
    with pytest.raises(Undecodable):
        decode(twice)
    assert capfd.readouterr().err == ""


def test_as_much_as_real_files_have_is_allowed() -> None:
    rows = b"".join(b"\0" + row.tobytes() for row in RGB)
    packed = zlib.compress(rows, 0)
    pieces = [chunk(b"IDAT", packed[i : i + 1]) for i in range(len(packed))]
    text = [chunk(b"tEXt", b"Comment\0%d" % i) for i in range(900)]
    np.testing.assert_array_equal(decode(PNG[:33] + b"".join(text + pieces) + chunk(b"IEND")), RGB)
    whole = decode(JPEG)
    for odd in (
        b"\xff" * 200,
        segment(0xFE) + bytes(2000),
        segment(0xEF) * 900,
        segment(0xE1, bytes(65_533)) * 400,  # 26 MB of a depth map, or a thermal camera's readings
    ):
        np.testing.assert_array_equal(decode(jpeg_with(odd)), whole)
    tags = [(1000 + i, 2, 900, 5000) for i in range(MAX_TAGS - 20)]
    assert decode(tiff(*tags, data=bytes(20_000))).min() == 7
    assert MAX_TABLES > 65_535 + 4 * 131 + 8 * 277  # a thumbnail, and all tables there may be


def exif(orientation: int, order: str = "<", kind: int = 3) -> bytes:
    return directory(0x0112, kind, 1, orientation, order)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [3, 4])
@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0", b"Exif\0\0Exif\0\0"])
def test_orientation_is_read_from_exif(order: str, kind: int, prefix: bytes) -> None:
    data = prefix + exif(6, order, kind)
    files = {
        "PNG": png_with(chunk(b"eXIf", data)),
        "JPEG": jpeg_with(segment(0xE1, b"Exif\0\0" + data.removeprefix(b"Exif\0\0"))),
        "WEBP": webp_exif(data),
    }
    for name, file in files.items():
        assert strip(name, file).orientation == 6
        assert decode(file).shape == (WIDTH, HEIGHT, 3)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"II*\0",
        b"rubbish",
        b"II*\0\xff\xff\xff\xff",
        exif(6)[:15],
        exif(0),
        exif(9),
        exif(65_535),
        directory(0x0112, 3, 2, 6),
        directory(0x0112, 1, 1, 6),
        directory(0x0112, 5, 1, 6),
        directory(0x0112, 4, 0, 6),
        directory(0x0110, 3, 1, 6),
        b"II+\0\x08\0\0\0" + b"\xff" * 40,
    ],
)
def test_exif_without_a_valid_orientation_is_upright(data: bytes) -> None:
    for kind, file in (("PNG", png_with(chunk(b"eXIf", data))), ("JPEG", jpeg_with(app1(data)))):
        assert strip(kind, file).orientation == 1


def test_exif_of_several_segments_is_one() -> None:
    data = b"II*\0" + struct.pack("<I", 70_000) + bytes(70_000 - 8) + exif(8)[8:]
    assert strip("JPEG", jpeg_with(app1(data))).orientation == 8


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("form", ['<r tiff:Orientation="6"/>', "<tiff:Orientation>6</tiff:Orientation>"])
def test_orientation_is_read_from_xmp_where_exif_has_none(kind: str, form: str) -> None:
    def file(**options: Any) -> bytes:
        if kind == "PNG":
            info = PngInfo()
            info.add_itxt("XML:com.adobe.xmp", form, "en", "meta", zip=True)
            return save(PHOTO, kind, pnginfo=info, **options)
        if kind == "TIFF":
            return save(PHOTO, kind, tiffinfo={700: form.encode(), **options.get("tags", {})})
        return save(PHOTO, kind, xmp=form.encode(), **options)

    assert strip(kind, file()).orientation == 6
    with_exif = file(tags={274: 3}) if kind == "TIFF" else file(exif=b"Exif\0\0" + exif(3))
    assert strip(kind, with_exif).orientation == 3


@pytest.mark.parametrize("zipped", [False, True])
def test_orientation_is_read_from_the_texts_of_imagemagick(zipped: bool) -> None:
    info = PngInfo()
    hexadecimal = (b"Exif\0\0" + exif(8)).hex()
    lines = "\n".join(hexadecimal[i : i + 72] for i in range(0, len(hexadecimal), 72))
    info.add_text("Raw profile type exif", f"\nexif\n{len(hexadecimal) // 2:8}\n{lines}\n", zip=zipped)
    assert strip("PNG", save(PHOTO, "PNG", pnginfo=info)).orientation == 8


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_orientation_of_a_tiff_is_applied_once(big: bool, compression: str) -> None:
    data = save(PHOTO, "TIFF", tiffinfo={274: 6}, compression=compression, big_tiff=big)
    assert strip("TIFF", data).orientation == 6
    np.testing.assert_array_equal(decode(data), np.rot90(RGB, -1))


@pytest.mark.parametrize(
    "chunks",
    [
        chunk(b"CgBI", bytes(4)),
        chunk(b"ABCD"),
        chunk(b"tEXt", b"a\0b")[:-1] + b"x",
        chunk(b"PLTE", bytes(771)),
        chunk(b"PLTE", bytes(3)) * 2,
        chunk(b"IDAT", b"x") + chunk(b"tEXt"),
    ],
    ids=["critical of Apple", "critical", "checksum", "long palette", "two palettes", "parted pixels"],
)
def test_chunks_that_the_specification_rules_out(chunks: bytes) -> None:
    with pytest.raises(Undecodable, match="truncated, damaged"):
        decode(png_with(chunks))


@pytest.mark.parametrize(
    ("control", "frames"), [(b"", 1), (b"\0\0\0\0", 1), (b"\0\0\0\1", 2), (b"\0\0\0\2", 2), (b"\xff" * 4, 2)]
)
def test_an_animation_is_seen_though_stripped(control: bytes, frames: int) -> None:
    assert strip("PNG", png_with(chunk(b"acTL", control + bytes(4)))).is_animated is (frames > 1)


def test_the_first_frame_of_an_animation_of_one_is_no_second() -> None:
    single = png_with(chunk(b"acTL", b"\0\0\0\1\0\0\0\0"), chunk(b"fcTL", bytes(26)))
    assert not strip("PNG", single).is_animated


@pytest.mark.parametrize("marker", [0x02, 0xBF, 0xC8, 0xD8, 0xD9, 0xDE, 0xF0, 0xFD])
def test_markers_that_have_no_place_before_the_pixels(marker: int) -> None:
    with pytest.raises(Undecodable, match="truncated, damaged"):
        decode(jpeg_with(segment(marker, bytes(8))))


def metadata() -> dict[str, dict[str, Any]]:
    profile = bytes(range(256)) * 600  # three segments of JPEG
    texts = PngInfo()
    texts.add_text("Comment", "x" * 5000)
    texts.add_text("Comment", "y" * 5000, zip=True)
    texts.add_itxt("Titel", "Prüfling", "de", "Titel", zip=True)
    texts.add(b"gAMA", struct.pack(">I", 45_455))
    texts.add(b"pHYs", struct.pack(">IIB", 11_811, 11_811, 1))
    texts.add(b"sBIT", b"\5\5\5")
    texts.add(b"vpAg", bytes(9), after_idat=True)
    camera = Image.Exif()
    camera.update({0x010F: "maker", 0x0110: "m" * 300, 0x011A: 300.0, 0x0128: 2})
    camera[0x9C9C] = bytes(20_000)
    return {
        "none": {},
        "icc": {"icc_profile": profile},
        "exif": {"exif": camera.tobytes()},
        "all": {"icc_profile": profile, "exif": camera.tobytes(), "pnginfo": texts},
    }


def kinds() -> dict[str, tuple[str, Image.Image, dict[str, Any]]]:
    deep = Image.fromarray(RGB[..., 0].astype(np.uint16) * 257)
    modes = {
        "RGB": PHOTO,
        "L": PHOTO.convert("L"),
        "1": PHOTO.convert("1"),
        "P": PHOTO.quantize(99),
        "deep": deep,
    }
    alpha = PHOTO.convert("RGBA")
    made: dict[str, tuple[str, Image.Image, dict[str, Any]]]
    made = {f"{kind} {mode}": (kind, image, {}) for kind in ("PNG", "TIFF") for mode, image in modes.items()}
    made |= {
        f"tiff {c}": ("TIFF", PHOTO, {"compression": c})
        for c in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg")
    }
    made |= {
        f"tiff {c}": ("TIFF", modes["1"], {"compression": c}) for c in ("group3", "group4", "tiff_ccitt")
    }
    return made | {
        "png alpha": ("PNG", alpha, {}),
        "tiff strips": ("TIFF", PHOTO, {"strip_size": 400}),
        "tiff big": ("TIFF", PHOTO, {"big_tiff": True, "compression": "tiff_lzw"}),
        "tiff cmyk": ("TIFF", PHOTO.convert("CMYK"), {}),
        "jpeg": ("JPEG", PHOTO, {}),
        "jpeg cmyk": ("JPEG", PHOTO.convert("CMYK"), {}),
        "jpeg rgb": ("JPEG", PHOTO, {"keep_rgb": True}),
        "jpeg progressive": ("JPEG", PHOTO, {"progressive": True, "comment": "c" * 9000}),
        "webp": ("WEBP", alpha, {"lossless": True}),
        "webp lossy": ("WEBP", PHOTO, {}),
    }


@pytest.mark.parametrize("extra", metadata())
@pytest.mark.parametrize("name", kinds())
def test_an_honest_picture_keeps_its_pixels(name: str, extra: str) -> None:
    kind, image, options = kinds()[name]
    data = save(image, kind, **options, **metadata()[extra])
    stripped = strip(kind, data)
    assert len(stripped.data) <= len(data)
    with Image.open(io.BytesIO(data)) as before, Image.open(io.BytesIO(stripped.data)) as after:
        assert before.mode == after.mode
        assert before.tobytes() == after.tobytes()
    np.testing.assert_array_equal(decode(data), decode(save(image, kind, **options)))


def tiled(order: str, *, planar: bool) -> bytes:
    """A TIFF of RGB tiles 16 x 16, its directory at the end."""
    planes: list[NDArray[np.uint8]] = [RGB[..., i : i + 1] for i in range(3)] if planar else [RGB]
    tiles = [
        np.pad(plane, ((0, 11), (0, 11), (0, 0)))[y : y + 16, x : x + 16].tobytes()
        for plane in planes
        for y in range(0, HEIGHT, 16)
        for x in range(0, WIDTH, 16)
    ]
    n, size = len(tiles), len(tiles[0])
    body = b"".join(tiles)
    arrays = 8 + len(body)
    offsets = struct.pack(f"{order}{n}I", *range(8, arrays, size)) + struct.pack(f"{order}{n}I", *[size] * n)
    bits = arrays + len(offsets)
    start = bits + 6
    one = [
        (256, WIDTH),
        (257, HEIGHT),
        (259, 1),
        (262, 2),
        (274, 1),
        (277, 3),
        (284, 1 + planar),
        (322, 16),
        (323, 16),
    ]
    tags = [(tag, 4, 1, value) for tag, value in one]
    tags += [(258, 3, 3, bits), (324, 4, n, arrays), (325, 4, n, arrays + 4 * n), (305, 2, 9, 8)]
    entries = b"".join(struct.pack(order + "HHII", *tag) for tag in sorted(tags))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", start)
    depth = struct.pack(order + "3H", 8, 8, 8)
    return head + body + offsets + depth + struct.pack(order + "H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", [False, True])
def test_a_tiled_picture_keeps_its_pixels(order: str, planar: bool) -> None:
    np.testing.assert_array_equal(decode(tiled(order, planar=planar)), RGB)


def test_a_bare_file_is_not_copied() -> None:
    assert strip("PNG", PNG).data is PNG
    bmp = save(PHOTO, "BMP")
    assert strip("BMP", bmp) == Stripped(bmp)


Edit = tuple[int, bytes]
SAMPLES = [
    ("JPEG", jpeg_with(app1(exif(6)))),
    (
        "PNG",
        png_with(
            chunk(b"eXIf", exif(6)), chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"x"))
        ),
    ),
    ("TIFF", tiff((274, 3, 1, 6), (700, 1, 100, 20))),
    ("TIFF", save(PHOTO, "TIFF", big_tiff=True)),
    ("WEBP", webp_exif(exif(6))),
]


@settings(max_examples=400, derandomize=True)
@given(
    sample=st.sampled_from(SAMPLES),
    edits=st.lists(st.tuples(st.integers(0, 200) | st.integers(0, 10**5), st.binary(max_size=8)), max_size=5),
    cut=st.integers(0, 10**5),
)
def test_whatever_the_bytes_are_it_ends_in_a_picture_or_an_image_error(
    sample: tuple[str, bytes], edits: list[Edit], cut: int
) -> None:
    data = bytearray(sample[1])
    for at, new in edits:
        data[at % len(data) : at % len(data) + len(new)] = new
    with contextlib.suppress(Refused, OSError, ValueError, struct.error):
        stripped = strip(sample[0], bytes(data[: cut or None]))
        assert 1 <= stripped.orientation <= 8
    with contextlib.suppress(ImageError):
        decode(bytes(data))
