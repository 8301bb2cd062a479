"""Image decoder of training and serving: bytes of a file to RGB pixels.

:mod:`.containers` strips the metadata from the file, and Pillow reads the header of the rest. Images that
are too large, of another kind or of several frames are rejected before a pixel is decoded. OpenCV decodes
the pixels; Pillow does where OpenCV silently returns wrong ones (:func:`_is_decoded_by_opencv`).
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
_MAX_JPEG_SCANS = 30  # of the largest image allowed; smaller images may have more
_SCAN = b"\xff\xda"  # marker of a scan; in coded data a zero follows 0xff (ITU-T T.81, B.1.1.5)
_PILLOW_MODULES = re.compile(r"PIL\.")

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def decode_image(
    data: bytes, limits: ImageLimits = DEFAULT_LIMITS, sample_bits: int = MAX_SAMPLE_BITS
) -> NDArray[np.uint8]:
    """Decode a file to uint8 RGB (H, W, 3), contiguous and writeable.

    EXIF orientation is applied, grey becomes three equal channels, alpha is dropped, palettes are
    expanded, CMYK is converted without a colour profile. A truncated file is an error, never a partly
    filled image, unless somebody closed a cut JPEG with an end marker. Bytes after the end of an image are
    ignored. Several threads may decode at once.

    Args:
        data: content of the file.
        limits: limits on its size.
        sample_bits: number of low bits, 8 to 16, that hold the value of a sample of more than 8 bits. The
            upper 8 of them are kept, and larger values become white. A 12-bit camera may fill 12 of 16.

    Raises:
        ImageTooLargeError, UnsupportedFormatError, UndecodableError: no other error for any bytes.
    """

    def pixels(header: ImageFile, file: StrippedImage) -> NDArray[np.uint8]:
        if _is_decoded_by_opencv(header):
            decoded = _decode_with_opencv(header, file.data, sample_bits)
        else:
            decoded = _decode_with_pillow(header, sample_bits)
        return np.ascontiguousarray(_upright(decoded, file.orientation), dtype=np.uint8)

    return _open(data, limits, pixels)


def decoded_size(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> tuple[int, int]:
    """Read from the header the (height, width) that :func:`decode_image` returns.

    Raises:
        ImageTooLargeError, UnsupportedFormatError, UndecodableError: as :func:`decode_image`, for faults
            that show in the header.
    """

    def size(header: ImageFile, file: StrippedImage) -> tuple[int, int]:
        is_transposed = 5 <= file.orientation <= 8
        return (header.width, header.height) if is_transposed else (header.height, header.width)

    return _open(data, limits, size)


def _open(data: bytes, limits: ImageLimits, make: Callable[[ImageFile, StrippedImage], T]) -> T:
    """Check a file's header and call ``make``; every error becomes an ImageError."""
    if len(data) > limits.max_bytes:
        raise ImageTooLargeError(f"The file is larger than the {limits.max_bytes:,} bytes allowed.")
    reader = reader_of(data)
    if reader is None:
        came = f"its content begins with {data[:12]!r}" if data else "it is empty"
        raise UnsupportedFormatError(f"The file is not a PNG, JPEG, BMP, TIFF or WEBP image: {came}.")
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
        raise ImageTooLargeError(f"The image has more than {limits.max_pixels:,} pixels.") from error
    # Damaged data raises OSError, SyntaxError, struct.error, cv2.error, MemoryError and others.
    except Exception as error:
        raise UndecodableError(
            f"The {reader.format} image cannot be decoded: it is truncated, damaged or of a rare "
            "kind. Send it again, or save it as PNG."
        ) from error


def read_image(
    path: Path, limits: ImageLimits = FILE_LIMITS, sample_bits: int = MAX_SAMPLE_BITS
) -> NDArray[np.uint8]:
    """Decode a file on disk, see :func:`decode_image`.

    Raises:
        ImageError: of the same classes; the message names the path.
        OSError: the file cannot be read.
    """
    try:
        return decode_image(read_image_bytes(path, limits), limits, sample_bits)
    except ImageError as error:
        raise type(error)(f"{path}: {error}") from error


def read_image_bytes(path: Path, limits: ImageLimits = FILE_LIMITS) -> bytes:
    """Read a file, but at most one byte more than the limit allows.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return file.read(limits.max_bytes + 1)


def _ignore_pillow_warnings() -> None:
    """Hide Pillow's warnings about odd metadata: the caller gets an image or an error.

    catch_warnings() replaces the filters of the whole process, which is not safe with threads. So one
    filter stays installed, and moves to the front again when another filter came before it.
    """
    first = next(iter(warnings.filters), None)
    if first is None or first[3] != _PILLOW_MODULES:
        warnings.filterwarnings("ignore", module=_PILLOW_MODULES.pattern)


def _check(header: ImageFile, file: StrippedImage, limits: ImageLimits) -> None:
    """Reject by the header what is too large, or not a single image of known pixels."""
    _check_size("The image", header.width, header.height, limits)
    if isinstance(header, TiffImageFile):
        # A decoder decodes whole tiles, even for a small image.
        sides = header.tag_v2.get(Tag.TileWidth, 0), header.tag_v2.get(Tag.TileLength, 0)
        _check_size("A tile of the image", *sides, limits)
    if file.is_animated or getattr(header, "is_animated", False):
        raise UndecodableError("The file holds several frames or pages; send one image a file.")
    if header.mode not in _MODES:
        kind = _OTHER_MODES.get(header.mode, header.mode)
        raise UndecodableError(
            f"Pixels of this kind are not accepted ({kind}); send 8-bit or 16-bit ones, grey, RGB, "
            "palette or CMYK."
        )
    # A progressive JPEG has about ten scans, each a pass over all pixels. A scan can be as short as 80
    # bytes, so a file of a megabyte could keep a decoder busy for minutes.
    scans = file.data.count(_SCAN) if header.format == "JPEG" else 0
    if scans * header.width * header.height > _MAX_JPEG_SCANS * limits.max_pixels:
        raise UndecodableError(f"The JPEG image has {scans:,} scans, too many for its size.")


def _check_size(what: str, width: int, height: int, limits: ImageLimits) -> None:
    if width * height > limits.max_pixels or max(width, height) > limits.max_side:
        raise ImageTooLargeError(
            f"{what} has {width} x {height} pixels; at most {limits.max_pixels:,} pixels and "
            f"{limits.max_side:,} along a side are allowed."
        )


def _is_decoded_by_opencv(header: ImageFile) -> bool:
    """Check that OpenCV (4.11 to 5.0) decodes the pixels correctly.

    In TIFF it multiplies colours by alpha, mixes up the planes or tiles of 16-bit images and knows fewer
    compressions. In BMP it turns white (31) of 16-bit pixels into 248, and ignores the channel masks of
    32-bit ones.
    """
    if header.format == "BMP":
        layout = header.tile[0].args[0]  # type: ignore[index]
        return layout in {"1", "P;1", "P;4", "P", "L", "BGR", "BGRX", "BGRA"}
    return header.format != "TIFF"


def _decode_with_opencv(header: ImageFile, data: bytes, sample_bits: int) -> NDArray[Any]:
    # `_upright` applies the orientation: OpenCV's formats and versions differ in whether they do.
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    if sample_bits < MAX_SAMPLE_BITS:
        flags |= cv2.IMREAD_ANYDEPTH  # otherwise OpenCV keeps the high byte
        if header.mode.startswith("I;16"):  # one channel, not three equal ones of twice the size
            flags = flags & ~cv2.IMREAD_COLOR_RGB | cv2.IMREAD_GRAYSCALE
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if pixels is None or pixels.shape[:2] != (header.height, header.width):
        raise OSError("OpenCV rejects the file, or decodes another size than its header says")
    upper = (
        _upper_8(pixels, sample_bits) if pixels.dtype == np.uint16 else pixels.astype(np.uint8, copy=False)
    )
    return upper if upper.ndim == 3 else _grey_to_rgb(upper)


def _upper_8(samples: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Reduce uint16 samples of ``bits`` bits to 8, clipping larger ones; overwrites the samples."""
    np.minimum(samples, 2**bits - 1, out=samples)
    samples >>= bits - 8
    return samples.astype(np.uint8)


def _grey_to_rgb(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(grey[..., None], 3, axis=2)


def _decode_with_pillow(header: ImageFile, sample_bits: int) -> NDArray[np.uint8]:
    """Decode TIFF and the rarer kinds of BMP."""
    if not isinstance(header, TiffImageFile):
        return _rgb(header)
    tags = header.tag_v2
    bits = max(tags.get(Tag.BitsPerSample, (1,)))
    if header.mode.startswith("I;16"):
        # Pillow's convert() clips at 255 instead of scaling.
        bits = min(bits, sample_bits)
        grey = _upper_8(np.array(header).astype(np.uint16), bits)
        if tags.get(Tag.PhotometricInterpretation) == 0:
            # Zero is white. Pillow itself inverts images of up to 8 bits.
            grey = 255 - grey
        return _grey_to_rgb(grey)
    if bits > sample_bits:
        raise UndecodableError(  # Pillow returns only the high byte of colours
            f"A TIFF of several channels of {bits} bits, {sample_bits} of them used, is not read; send it "
            "as PNG."
        )
    if bits > 8 and tags.get(Tag.PlanarConfiguration) == 2 and tags.get(Tag.Compression, 1) == 1:
        raise UndecodableError(  # Pillow 13 would return noise
            "16-bit TIFF with separate colour planes is only read compressed; send it interleaved."
        )
    return _rgb(header)


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    # convert() copies even if there is nothing to convert.
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn ``pixels`` (H, W, 3) upright by their EXIF orientation, 1 to 8."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels[:, ::-1] if orientation in (2, 3, 6, 7) else pixels
