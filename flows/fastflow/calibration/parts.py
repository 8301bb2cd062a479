"""Which pictures show the same part, as their names tell.

Several photographs of one part are like each other more than like those of the next part. Where some of them
fit a model and others calibrate it, calibration scores are lower than a new part's will be, and the threshold
rejects far more good parts than it promises: what is exchangeable are parts. So parts are divided, not
pictures, and each part calibrates by one picture, drawn by chance; thresholds then promise what they say of
one picture drawn by chance of a new part ("subsampling once" of Dunn, Wasserman and Ramdas 2022, arXiv
1809.07441). Of one certain view, which may be harder than others, they promise nothing.

How names tell is said by a file `parts.txt` beside the pictures: a regular expression.
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
_OWN = "/"  # begins no part that is told, for no file's name has one


class PartsError(ValueError):
    """A parts.txt that cannot be used, or that does not fit a picture's name."""


def parts_from_names(names: Sequence[str], folder: Path) -> list[str] | None:
    """What tells each picture's part from others; None where the folder has no `parts.txt`.

    The expression is searched for in the file's name. What its groups match, all of them, tells parts apart,
    or all that it matches where it has none. A name that it matches without any of its groups, as
    `^(?:([a-z]+)_)?` may, is told to be of a part of its own, see `is_single_image`.

    Args:
        names: of the pictures' files, without folders.
        folder: that may hold a `parts.txt`, one line besides empty ones and comments (#).

    Raises:
        PartsError: the file cannot be read, holds no expression, or does not fit a name.
    """
    told = _match_parts(names, folder)
    if told is None:
        return None
    found = []
    for name, part in zip(names, told, strict=True):
        if part is None:
            file = folder / PARTS
            raise PartsError(
                f"{file}: {_read_expression(file).pattern!r} does not say which part {name} shows"
            )
        found.append(part)
    return found


def parts_or_single_images(names: Sequence[str], folder: Path) -> list[str] | None:
    """As `parts_from_names`, but a name that the expression does not fit has a part of its own.

    Raises:
        PartsError: the file cannot be read, or holds no expression.
    """
    told = _match_parts(names, folder)
    if told is None:
        return None
    return [f"{_OWN}{i}" if part is None else part for i, part in enumerate(told)]


def is_single_image(part: str) -> bool:
    """Whether a part is of one picture alone: the same text elsewhere is another part."""
    return part.startswith(_OWN)


def number_parts(names: Sequence[str], folder: Path) -> NDArray[np.int64]:
    """The number of each picture's part, (N,), by first appearance; each its own without a `parts.txt`.

    Raises:
        PartsError: as `parts_from_names`.
    """
    parts = parts_from_names(names, folder)
    return np.arange(len(names), dtype=np.int64) if parts is None else number_by_appearance(parts)


def number_by_appearance(parts: Sequence[str]) -> NDArray[np.int64]:
    """Numbers of parts, (N,), in the order in which they first appear."""
    number = {part: i for i, part in enumerate(dict.fromkeys(parts))}
    return np.array([number[part] for part in parts], dtype=np.int64)


def pick_one_per_part(parts: NDArray[np.int64], hashes: Sequence[str]) -> NDArray[np.int64]:
    """Rows (P,), sorted, of one picture of each part: that of the least sha256, which nobody chooses.

    Args:
        parts: (N,) numbers of the pictures' parts.
        hashes: sha256 of each picture.
    """
    order = sorted(range(len(hashes)), key=hashes.__getitem__)
    _, first = np.unique(parts[order], return_index=True)
    return np.sort(np.array(order, dtype=np.int64)[first])


def _match_parts(names: Sequence[str], folder: Path) -> list[str | None] | None:
    """The part that each name tells, None where it tells none; None for all without a `parts.txt`."""
    file = folder / PARTS
    if not os.path.lexists(file):  # a link to nothing is no leave to divide by pictures
        return None
    expression = _read_expression(file)
    found: list[str | None] = []
    times: Counter[str] = Counter()
    for name in names:
        # A Mac writes accents apart; the same name must be the same part.
        composed = unicodedata.normalize("NFC", name)
        match = expression.search(composed)
        if match is not None and set(match.groups()) == {None}:
            # By the name, so that it divides as pictures do without the file; it may be there in two folders.
            found.append(f"{_OWN}{times[composed] or ''}{_OWN}{composed}")
            times[composed] += 1
            continue
        part = "" if match is None else "\0".join(text or "" for text in match.groups() or [match.group()])
        found.append(part if part.strip("\0") else None)
    return found


def _read_expression(file: Path) -> re.Pattern[str]:
    try:
        text = file.read_text(encoding="utf-8-sig")  # as editors of Windows write it
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
