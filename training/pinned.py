"""A run's pictures, each pinned to what its file held when the run began.

A run may read a picture hours after it was hashed. What it then computes stands under that hash, in cached
features and in the published version, so it must be of the same bytes.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from flows.fastflow import images
from flows.fastflow.images import FILE_LIMITS, ImageError, decode
from flows.fastflow.listing import lines
from training.datasets.sample import DatasetError

T = TypeVar("T")
_NAMED = 20


class Pinned(NamedTuple):
    """A picture's file, and the sha256 of what it held when the run began."""

    path: Path
    sha256: str


def read(picture: Pinned, sample_bits: int) -> NDArray[np.uint8]:
    """The picture's pixels, see `images.decode`.

    Raises:
        DatasetError: as `read_bytes`.
        ImageError: it cannot be decoded; it is named.
    """
    return _made_of(picture, lambda data: decode(data, FILE_LIMITS, sample_bits))


def size_of(picture: Pinned) -> tuple[int, int]:
    """The picture's (height, width), by its header alone.

    Raises:
        DatasetError: as `read_bytes`.
        ImageError: it cannot be decoded, as far as the header tells; it is named.
    """
    return _made_of(picture, lambda data: images.size_of(data, FILE_LIMITS))


def _made_of(picture: Pinned, make: Callable[[bytes], T]) -> T:
    data = read_bytes(picture)
    try:
        return make(data)
    except ImageError as error:
        raise type(error)(f"{picture.path}: {error}") from error


def read_bytes(picture: Pinned) -> bytes:
    """The picture's bytes.

    Raises:
        DatasetError: they are others than when the run began, or cannot be read any more; it is named.
    """
    try:
        data = images.read_bytes(picture.path)
    except OSError as error:
        raise _gone([_unreadable(picture, error)]) from error
    # No run begins with one that is too large, which is not read to its end.
    if len(data) > FILE_LIMITS.max_bytes or hashlib.sha256(data).hexdigest() != picture.sha256:
        raise DatasetError(
            f"{picture.path} was changed since the run began. Put it back as it was, and --resume goes on "
            "from what is fitted; as it is now, this is another run, which begins anew"
        )
    return data


def expect_there(pictures: Sequence[Pinned]) -> None:
    """Find pictures that are gone, all at once, before anything is computed of others.

    Raises:
        DatasetError: some cannot be opened any more; they are named, at most `_NAMED` of them.
    """
    wrong = []
    for picture in pictures:
        try:
            picture.path.open("rb").close()
        except OSError as error:
            wrong.append(_unreadable(picture, error))
    if wrong:
        raise _gone(wrong)


def _unreadable(picture: Pinned, error: OSError) -> str:
    return f"{picture.path}: {error.strerror or error}"


def _gone(wrong: Sequence[str]) -> DatasetError:
    listed = "\n".join(lines(wrong, _NAMED))
    return DatasetError(
        f"pictures that were there when the run began cannot be read any more, {len(wrong)} in number:\n"
        f"{listed}\n"
        "Put them back, and --resume goes on from what is fitted; without them, this is another run, which "
        "begins anew"
    )
