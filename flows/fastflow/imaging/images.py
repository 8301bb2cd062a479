"""One decoder for training and serving: the bytes of a picture in, RGB pixels out.

The file is stripped of its metadata (:mod:`.containers`). Pillow reads the header of what is left;
what is too large, of another kind or of several frames is refused before a pixel is decoded. OpenCV
decodes the pixels, except where it returns wrong ones without a word: there Pillow does
(:func:`_opencv_is_right`).

    ImageError
    ├── TooLarge            more bytes or pixels than the limits allow
    ├── UnsupportedFormat   not one of the five formats, by content
    └── Undecodable         damaged, truncated, or not a single 8-bit or 16-bit picture
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ExifTags import Base as Tag
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from flows.fastflow.config import MAX_SAMPLE_BITS
from flows.fastflow.imaging import decoder_messages
from flows.fastflow.imaging.containers.strip import strip
from flows.fastflow.imaging.containers.stripped import Refused, Stripped

T = TypeVar("T")

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})

# Not Image.open: it warns and raises at limits on the size that are not ours.
_READERS: tuple[tuple[re.Pattern[bytes], type[ImageFile]], ...] = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImageFile),
    (re.compile(rb"\xff\xd8\xff"), JpegImageFile),
    # With the size of the second header, for many a text begins with "BM".
    (re.compile(rb"(?s)BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"), BmpImageFile),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), TiffImageFile),
    (re.compile(rb"(?s)RIFF.{4}WEBPVP8[ LX]"), WebPImageFile),
)
_MODES = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I;16B"})
_OTHER_MODES = {"F": "32-bit floating point", "I": "signed or 32-bit integers", "LAB": "CIELAB"}
_HOT = 1e-4  # share of samples
_PNG_DEPTH = 24  # where the header says how many bits a sample has (ISO/IEC 15948, 11.2.1)
_MAX_JPEG_SCANS = 30  # of the largest picture allowed, and more of smaller ones
_SCAN = b"\xff\xda"  # begins one: in what is coded a zero follows 0xff (ITU-T T.81, B.1.1.5)
_PILLOW_MODULES = re.compile(r"PIL\.")

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class ImageError(ValueError):
    """A picture that is not accepted; the message says what came and what is allowed."""


class TooLarge(ImageError):  # noqa: N818
    """More bytes or pixels than the limits allow."""


class UnsupportedFormat(ImageError):  # noqa: N818
    """Not PNG, JPEG, BMP, TIFF or WEBP. The content decides, not a name or a media type."""


class Undecodable(ImageError):  # noqa: N818
    """Truncated, damaged, of zero size, of several frames, or of pixels not 8-bit or 16-bit."""


@dataclass(frozen=True)
class Limits:
    """What a picture may cost. A side is in pixels; 50 million pixels are 150 MB in memory."""

    max_bytes: int = 32 * 2**20
    max_pixels: int = 50_000_000
    max_side: int = 16_384


def uncompressed_bytes(max_pixels: int) -> int:
    """Bytes that suffice for a file of so many pixels of three times 16 bits, however little it is packed."""
    return 6 * max_pixels + 2**20


DEFAULT_LIMITS = Limits()
# Of files of one's own, which nobody sends.
FILE_LIMITS = Limits(max_bytes=uncompressed_bytes(Limits.max_pixels))


def decode(
    data: bytes, limits: Limits = DEFAULT_LIMITS, sample_bits: int = MAX_SAMPLE_BITS
) -> NDArray[np.uint8]:
    """The picture in ``data`` as uint8 RGB (H, W, 3), contiguous and writeable.

    EXIF orientation is applied, grey becomes three equal channels, alpha is dropped, palettes are
    expanded, CMYK is converted without a colour profile. A truncated file never comes out partly
    filled (a JPEG that someone cut and closed with an end marker cannot be told from a whole one);
    bytes after the end of a picture are ignored. Several threads may decode at once.

    Args:
        data: of the file.
        limits: on its size.
        sample_bits: of samples of more than 8 bits, the lowest so many hold the value, 8 to 16: their
            upper 8 are kept, and what is above them is white. A camera of 12 bits may fill 12 of 16.

    Raises:
        TooLarge, UnsupportedFormat, Undecodable: and nothing else, whatever the bytes are.
    """

    def pixels(header: ImageFile, file: Stripped) -> NDArray[np.uint8]:
        by_opencv = _opencv_is_right(header)
        found = _by_opencv(header, file.data, sample_bits) if by_opencv else _by_pillow(header, sample_bits)
        return np.ascontiguousarray(_upright(found, file.orientation), dtype=np.uint8)

    return _opened(data, limits, pixels)


def size_of(data: bytes, limits: Limits = DEFAULT_LIMITS) -> tuple[int, int]:
    """(height, width) of what :func:`decode` would make of a file, by its header alone.

    Raises:
        TooLarge, UnsupportedFormat, Undecodable: as :func:`decode`, as far as the header tells.
    """

    def size(header: ImageFile, file: Stripped) -> tuple[int, int]:
        lies = 5 <= file.orientation <= 8
        return (header.width, header.height) if lies else (header.height, header.width)

    return _opened(data, limits, size)


def _opened(data: bytes, limits: Limits, make: Callable[[ImageFile, Stripped], T]) -> T:
    """What is made of a file whose header was looked at; whatever goes wrong is an ImageError."""
    if len(data) > limits.max_bytes:
        raise TooLarge(f"The file is larger than the {limits.max_bytes:,} bytes allowed.")
    reader = _reader_of(data)
    if reader is None:
        came = f"its content begins with {data[:12]!r}" if data else "it is empty"
        raise UnsupportedFormat(f"The file is not a PNG, JPEG, BMP, TIFF or WEBP picture: {came}.")
    _ignore_pillow_warnings()
    try:
        with decoder_messages.silenced():
            file = strip(reader.format, data)
            header = reader(io.BytesIO(file.data))
            _check(header, file, limits)
            return make(header, file)
    except ImageError:
        raise
    except Refused as error:
        raise Undecodable(str(error)) from error
    except Image.DecompressionBombError as error:
        raise TooLarge(f"The picture has more than {limits.max_pixels:,} pixels.") from error
    # Damaged data ends in OSError, SyntaxError, struct.error, cv2.error, MemoryError and others.
    except Exception as error:
        raise Undecodable(
            f"The {reader.format} picture cannot be decoded: it is truncated, damaged or of a rare "
            "kind. Send it again, or saved anew as PNG."
        ) from error


def read(path: Path, limits: Limits = FILE_LIMITS, sample_bits: int = MAX_SAMPLE_BITS) -> NDArray[np.uint8]:
    """:func:`decode` of a file.

    Raises:
        ImageError: of the same kinds, naming the path.
        OSError: the file cannot be read.
    """
    try:
        return decode(read_bytes(path, limits), limits, sample_bits)
    except ImageError as error:
        raise type(error)(f"{path}: {error}") from error


def read_bytes(path: Path, limits: Limits = FILE_LIMITS) -> bytes:
    """A file's bytes, of one that is too large no more than shows :func:`decode` that it is.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return file.read(limits.max_bytes + 1)


class BitsUsed(NamedTuple):
    """How many bits samples take, 0 to 16.

    Attributes:
        brightest: of all of them.
        but_hot: of all but the brightest ten-thousandth, and at least one: a pixel that is hot tells nothing
            of what the camera gives.
    """

    brightest: int
    but_hot: int


def bits_used(data: bytes) -> BitsUsed | None:
    """How many bits the samples take, of grey or of PNG of 16 bits; None of any other.

    Cameras of 10 or 12 bits are often saved so that no sample is above 1023 or 4095: unless :func:`decode` is
    told so, it then leaves 4 or 16 grey levels.

    Args:
        data: of a file that :func:`decode` takes.
    """
    reader = _reader_of(data)
    if reader is None or reader not in (PngImageFile, TiffImageFile):
        return None
    if reader is PngImageFile:
        if data[_PNG_DEPTH] != 16:  # as nearly all, of which no more need be read
            return None
        file = np.frombuffer(strip(reader.format, data).data, np.uint8)
        samples = cv2.imdecode(file, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH)
        return None if samples is None else _bits(samples)
    image = reader(io.BytesIO(strip(reader.format, data).data))
    assert isinstance(image, TiffImageFile)  # noqa: S101
    if not image.mode.startswith("I;16") or max(image.tag_v2.get(Tag.BitsPerSample, (1,))) != 16:
        return None  # colours of which Pillow gives the high byte; 12 bits that are packed, and taken as such
    return _bits(np.asarray(image))


def _bits(samples: NDArray[Any]) -> BitsUsed:
    flat = (samples if samples.ndim == 2 else samples.max(2)).ravel()  # a grey PNG comes in three channels
    highest = max(0, len(flat) - 1 - max(1, int(_HOT * len(flat))))
    return BitsUsed(int(flat.max()).bit_length(), int(np.partition(flat, highest)[highest]).bit_length())


def _reader_of(data: bytes) -> type[ImageFile] | None:
    """What reads the header, by how the file begins; None of what is no picture."""
    return next((reader for signature, reader in _READERS if signature.match(data)), None)


def _ignore_pillow_warnings() -> None:
    """Keep Pillow's remarks on odd metadata from a user who gets a picture, or an error.

    catch_warnings() swaps the filters of the whole process and back, which threads must not do.
    So one filter stays, first in line, and is put there again only when others came before it.
    """
    first = next(iter(warnings.filters), None)
    if first is None or first[3] != _PILLOW_MODULES:
        warnings.filterwarnings("ignore", module=_PILLOW_MODULES.pattern)


def _check(header: ImageFile, file: Stripped, limits: Limits) -> None:
    """Refuse by the header alone what is too large, or not a single picture of known pixels."""
    _check_size("The picture", header.width, header.height, limits)
    if isinstance(header, TiffImageFile):
        # Decoded whole, however small the picture that is cut out of it.
        sides = header.tag_v2.get(Tag.TileWidth, 0), header.tag_v2.get(Tag.TileLength, 0)
        _check_size("A tile of the picture", *sides, limits)
    if file.is_animated or getattr(header, "is_animated", False):
        raise Undecodable("The file holds several frames or pages; send one picture a file.")
    if header.mode not in _MODES:
        kind = _OTHER_MODES.get(header.mode, header.mode)
        raise Undecodable(
            f"Pixels of this kind are not accepted ({kind}); send 8-bit or 16-bit ones, grey, RGB, "
            "palette or CMYK."
        )
    # A progressive JPEG has some ten scans, each a pass over all pixels. One may be 80 bytes long,
    # so that a file of a megabyte could keep a decoder busy for minutes.
    scans = file.data.count(_SCAN) if header.format == "JPEG" else 0
    if scans * header.width * header.height > _MAX_JPEG_SCANS * limits.max_pixels:
        raise Undecodable(f"The JPEG picture has {scans:,} scans, too many for its size.")


def _check_size(what: str, width: int, height: int, limits: Limits) -> None:
    if width * height > limits.max_pixels or max(width, height) > limits.max_side:
        raise TooLarge(
            f"{what} has {width} x {height} pixels; at most {limits.max_pixels:,} pixels and "
            f"{limits.max_side:,} along a side are allowed."
        )


def _opencv_is_right(header: ImageFile) -> bool:
    """Whether OpenCV (4.11 to 5.0) can be trusted with the pixels.

    Of TIFF it multiplies colours by alpha, mixes up the planes or tiles of 16-bit pictures and
    knows fewer compressions; of BMP it makes 248 of the 31 that is white in 16-bit pixels, and
    ignores the channel masks of 32-bit ones.
    """
    if header.format == "BMP":
        layout = header.tile[0].args[0]  # type: ignore[index]
        return layout in {"1", "P;1", "P;4", "P", "L", "BGR", "BGRX", "BGRA"}
    return header.format != "TIFF"


def _by_opencv(header: ImageFile, data: bytes, sample_bits: int) -> NDArray[Any]:
    # Orientation is ours, as OpenCV's formats and versions differ in whether they apply it.
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    if sample_bits < MAX_SAMPLE_BITS:
        flags |= cv2.IMREAD_ANYDEPTH  # or OpenCV keeps the high byte
        if header.mode.startswith("I;16"):  # once, not in three equal channels of twice the size
            flags = flags & ~cv2.IMREAD_COLOR_RGB | cv2.IMREAD_GRAYSCALE
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if pixels is None or pixels.shape[:2] != (header.height, header.width):
        raise OSError("OpenCV refuses the file, or finds another size than its header says")
    upper = (
        _upper_8(pixels, sample_bits) if pixels.dtype == np.uint16 else pixels.astype(np.uint8, copy=False)
    )
    return upper if upper.ndim == 3 else _in_three(upper)


def _upper_8(samples: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """The upper 8 of so many bits, and 255 for what does not fit into them; the uint16 samples are lost."""
    np.minimum(samples, 2**bits - 1, out=samples)
    samples >>= bits - 8
    return samples.astype(np.uint8)


def _in_three(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(grey[..., None], 3, axis=2)


def _by_pillow(header: ImageFile, sample_bits: int) -> NDArray[np.uint8]:
    """Pixels of TIFF and of the rarer BMP."""
    if not isinstance(header, TiffImageFile):
        return _rgb(header)
    tags = header.tag_v2
    bits = max(tags.get(Tag.BitsPerSample, (1,)))
    if header.mode.startswith("I;16"):
        # Left to convert(), Pillow would clip at 255 instead of scaling.
        bits = min(bits, sample_bits)
        grey = _upper_8(np.array(header).astype(np.uint16), bits)
        if tags.get(Tag.PhotometricInterpretation) == 0:
            # Zero is white. Of up to 8 bits Pillow turns it round by itself.
            grey = 255 - grey
        return _in_three(grey)
    if bits > sample_bits:
        raise Undecodable(  # of colours Pillow gives the high byte alone
            f"A TIFF of several channels of {bits} bits, {sample_bits} of them used, is not read; send it "
            "as PNG."
        )
    if bits > 8 and tags.get(Tag.PlanarConfiguration) == 2 and tags.get(Tag.Compression, 1) == 1:
        raise Undecodable(  # Pillow 13 would return noise
            "16-bit TIFF with separate colour planes is only read compressed; send it interleaved."
        )
    return _rgb(header)


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    # Where there is nothing to convert, convert() copies.
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """``pixels`` (H, W, 3) as they are to be looked at, by their EXIF orientation."""
    match orientation:
        case 2:
            return pixels[:, ::-1]
        case 3:
            return pixels[::-1, ::-1]
        case 4:
            return pixels[::-1]
        case 5:
            return pixels.transpose(1, 0, 2)
        case 6:
            return pixels.transpose(1, 0, 2)[:, ::-1]
        case 7:
            return pixels.transpose(1, 0, 2)[::-1, ::-1]
        case 8:
            return pixels.transpose(1, 0, 2)[::-1]
        case _:
            return pixels
