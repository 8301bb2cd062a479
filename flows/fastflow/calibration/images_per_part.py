"""Grouping of images by the part that they show, from their names.

Several images of one part resemble each other more than images of other parts. If some of them fit a model
and others calibrate it, calibration scores are lower than those of new parts, and the threshold rejects far
more good parts than it promises. Parts are exchangeable, images are not. So the split is by part, and each
part calibrates with one random image. Thresholds then hold for one random image of a new part
("subsampling once" of Dunn, Wasserman and Ramdas 2022, arXiv 1809.07441). They promise nothing about one
particular view, which may be harder than others.

The file `parts.txt` beside the images holds the regular expression that finds the part in a name.
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PARTS = "parts.txt"
_SINGLE = "/"  # begins the part of a single image; file names cannot contain it


class PartsError(ValueError):
    """A parts.txt that cannot be used, or that does not match an image's name."""


def parts_from_names(names: Sequence[str], folder: Path) -> list[str] | None:
    """Find the part of each image in its name; None if the folder has no `parts.txt`.

    The expression is searched in the file's name. All its groups together identify the part, or the whole
    match if it has no groups. A name that matches without any group, as possible with `^(?:([a-z]+)_)?`, is
    a part of its own, see `is_single_image`.

    Args:
        names: file names of the images, without folders.
        folder: a folder that may hold a `parts.txt`, with one line besides empty ones and comments (#).

    Raises:
        PartsError: the file cannot be read, holds no expression, or does not match a name.
    """
    matched = _match_parts(names, folder)
    if matched is None:
        return None
    parts = []
    for name, part in zip(names, matched, strict=True):
        if part is None:
            file = folder / PARTS
            raise PartsError(f"{file}: {_read_expression(file).pattern!r} finds no part in the name {name}")
        parts.append(part)
    return parts


def parts_or_single_images(names: Sequence[str], folder: Path) -> list[str] | None:
    """Call `parts_from_names`, but give names without a match a part of their own.

    Raises:
        PartsError: the file cannot be read, or holds no expression.
    """
    matched = _match_parts(names, folder)
    if matched is None:
        return None
    return [f"{_SINGLE}{i}" if part is None else part for i, part in enumerate(matched)]


def is_single_image(part: str) -> bool:
    """Check that a part has a single image; the same text in another folder is another part."""
    return part.startswith(_SINGLE)


def number_parts(names: Sequence[str], folder: Path) -> NDArray[np.int64]:
    """Number the images' parts, (N,), by first appearance; one part per image without a `parts.txt`.

    Raises:
        PartsError: as `parts_from_names`.
    """
    parts = parts_from_names(names, folder)
    return np.arange(len(names), dtype=np.int64) if parts is None else number_by_appearance(parts)


def number_by_appearance(parts: Sequence[str]) -> NDArray[np.int64]:
    """Number parts, (N,), in the order of their first appearance."""
    number = {part: i for i, part in enumerate(dict.fromkeys(parts))}
    return np.array([number[part] for part in parts], dtype=np.int64)


def pick_one_per_part(parts: NDArray[np.int64], hashes: Sequence[str]) -> NDArray[np.int64]:
    """Pick one image of each part: rows (P,), sorted.

    The smallest sha256 decides, which is random but reproducible.

    Args:
        parts: (N,) numbers of the images' parts.
        hashes: sha256 of each image.
    """
    order = sorted(range(len(hashes)), key=hashes.__getitem__)
    _, first = np.unique(parts[order], return_index=True)
    return np.sort(np.array(order, dtype=np.int64)[first])


def _match_parts(names: Sequence[str], folder: Path) -> list[str | None] | None:
    """Match each name: its part, or None without a match; None for all without a `parts.txt`."""
    file = folder / PARTS
    if not os.path.lexists(file):  # a dangling link is an error, not a missing file
        return None
    expression = _read_expression(file)
    parts: list[str | None] = []
    times: Counter[str] = Counter()
    for name in names:
        # macOS decomposes accents; the same name must be the same part.
        composed = unicodedata.normalize("NFC", name)
        match = expression.search(composed)
        if match is not None and set(match.groups()) == {None}:
            # By name, so the split is that of images without the file; two folders may hold the same name.
            parts.append(f"{_SINGLE}{times[composed] or ''}{_SINGLE}{composed}")
            times[composed] += 1
            continue
        part = "" if match is None else "\0".join(text or "" for text in match.groups() or [match.group()])
        parts.append(part if part.strip("\0") else None)
    return parts


def _read_expression(file: Path) -> re.Pattern[str]:
    try:
        text = file.read_text(encoding="utf-8-sig")  # editors on Windows write a byte order mark
    except OSError as error:
        raise PartsError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PartsError(f"{file} is not in UTF-8") from error
    lines = [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]
    if len(lines) != 1:
        raise PartsError(f"{file} must hold one regular expression; it has {len(lines)} lines")
    try:
        return re.compile(unicodedata.normalize("NFC", lines[0]))
    except (re.error, OverflowError, RecursionError) as error:
        raise PartsError(f"{file}: {lines[0]!r} is no regular expression: {error}") from error
