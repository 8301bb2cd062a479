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
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import Base as Tag
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from flows.fastflow.config import MAX_SAMPLE_BITS
from flows.fastflow.imaging import decoder_messages
from flows.fastflow.imaging.containers.strip_metadata import strip_metadata
from flows.fastflow.imaging.containers.stripped_image import ExcessiveMetadataError, StrippedImage
from flows.fastflow.imaging.image_errors import (
    ImageError,
    ImageTooLargeError,
    UndecodableError,
    UnsupportedFormatError,
)
from flows.fastflow.imaging.image_formats import reader_of
from flows.fastflow.imaging.image_limits import DEFAULT_LIMITS, FILE_LIMITS, ImageLimits

T = TypeVar("T")


_MODES = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I;16B"})
_OTHER_MODES = {"F": "32-bit floating point", "I": "signed or 32-bit integers", "LAB": "CIELAB"}
_MAX_JPEG_SCANS = 30  # of the largest picture allowed, and more of smaller ones
_SCAN = b"\xff\xda"  # begins one: in what is coded a zero follows 0xff (ITU-T T.81, B.1.1.5)
_PILLOW_MODULES = re.compile(r"PIL\.")

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def decode_image(
    data: bytes, limits: ImageLimits = DEFAULT_LIMITS, sample_bits: int = MAX_SAMPLE_BITS
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

    def pixels(header: ImageFile, file: StrippedImage) -> NDArray[np.uint8]:
        by_opencv = _opencv_is_right(header)
        found = _by_opencv(header, file.data, sample_bits) if by_opencv else _by_pillow(header, sample_bits)
        return np.ascontiguousarray(_upright(found, file.orientation), dtype=np.uint8)

    return _opened(data, limits, pixels)


def decoded_size(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> tuple[int, int]:
    """(height, width) of what :func:`decode_image` would make of a file, by its header alone.

    Raises:
        TooLarge, UnsupportedFormat, Undecodable: as :func:`decode_image`, as far as the header tells.
    """

    def size(header: ImageFile, file: StrippedImage) -> tuple[int, int]:
        lies = 5 <= file.orientation <= 8
        return (header.width, header.height) if lies else (header.height, header.width)

    return _opened(data, limits, size)


def _opened(data: bytes, limits: ImageLimits, make: Callable[[ImageFile, StrippedImage], T]) -> T:
    """What is made of a file whose header was looked at; whatever goes wrong is an ImageError."""
    if len(data) > limits.max_bytes:
        raise ImageTooLargeError(f"The file is larger than the {limits.max_bytes:,} bytes allowed.")
    reader = reader_of(data)
    if reader is None:
        came = f"its content begins with {data[:12]!r}" if data else "it is empty"
        raise UnsupportedFormatError(f"The file is not a PNG, JPEG, BMP, TIFF or WEBP picture: {came}.")
    _ignore_pillow_warnings()
    try:
        with decoder_messages.silenced():
            file = strip_metadata(reader.format, data)
            header = reader(io.BytesIO(file.data))
            _check(header, file, limits)
            return make(header, file)
    except ImageError:
        raise
    except ExcessiveMetadataError as error:
        raise UndecodableError(str(error)) from error
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(f"The picture has more than {limits.max_pixels:,} pixels.") from error
    # Damaged data ends in OSError, SyntaxError, struct.error, cv2.error, MemoryError and others.
    except Exception as error:
        raise UndecodableError(
            f"The {reader.format} picture cannot be decoded: it is truncated, damaged or of a rare "
            "kind. Send it again, or saved anew as PNG."
        ) from error


def read_image(
    path: Path, limits: ImageLimits = FILE_LIMITS, sample_bits: int = MAX_SAMPLE_BITS
) -> NDArray[np.uint8]:
    """:func:`decode_image` of a file.

    Raises:
        ImageError: of the same kinds, naming the path.
        OSError: the file cannot be read.
    """
    try:
        return decode_image(read_image_bytes(path, limits), limits, sample_bits)
    except ImageError as error:
        raise type(error)(f"{path}: {error}") from error


def read_image_bytes(path: Path, limits: ImageLimits = FILE_LIMITS) -> bytes:
    """A file's bytes, of one that is too large no more than shows :func:`decode_image` that it is.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return file.read(limits.max_bytes + 1)


def _ignore_pillow_warnings() -> None:
    """Keep Pillow's remarks on odd metadata from a user who gets a picture, or an error.

    catch_warnings() swaps the filters of the whole process and back, which threads must not do.
    So one filter stays, first in line, and is put there again only when others came before it.
    """
    first = next(iter(warnings.filters), None)
    if first is None or first[3] != _PILLOW_MODULES:
        warnings.filterwarnings("ignore", module=_PILLOW_MODULES.pattern)


def _check(header: ImageFile, file: StrippedImage, limits: ImageLimits) -> None:
    """Refuse by the header alone what is too large, or not a single picture of known pixels."""
    _check_size("The picture", header.width, header.height, limits)
    if isinstance(header, TiffImageFile):
        # Decoded whole, however small the picture that is cut out of it.
        sides = header.tag_v2.get(Tag.TileWidth, 0), header.tag_v2.get(Tag.TileLength, 0)
        _check_size("A tile of the picture", *sides, limits)
    if file.is_animated or getattr(header, "is_animated", False):
        raise UndecodableError("The file holds several frames or pages; send one picture a file.")
    if header.mode not in _MODES:
        kind = _OTHER_MODES.get(header.mode, header.mode)
        raise UndecodableError(
            f"Pixels of this kind are not accepted ({kind}); send 8-bit or 16-bit ones, grey, RGB, "
            "palette or CMYK."
        )
    # A progressive JPEG has some ten scans, each a pass over all pixels. One may be 80 bytes long,
    # so that a file of a megabyte could keep a decoder busy for minutes.
    scans = file.data.count(_SCAN) if header.format == "JPEG" else 0
    if scans * header.width * header.height > _MAX_JPEG_SCANS * limits.max_pixels:
        raise UndecodableError(f"The JPEG picture has {scans:,} scans, too many for its size.")


def _check_size(what: str, width: int, height: int, limits: ImageLimits) -> None:
    if width * height > limits.max_pixels or max(width, height) > limits.max_side:
        raise ImageTooLargeError(
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
        raise UndecodableError(  # of colours Pillow gives the high byte alone
            f"A TIFF of several channels of {bits} bits, {sample_bits} of them used, is not read; send it "
            "as PNG."
        )
    if bits > 8 and tags.get(Tag.PlanarConfiguration) == 2 and tags.get(Tag.Compression, 1) == 1:
        raise UndecodableError(  # Pillow 13 would return noise
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
