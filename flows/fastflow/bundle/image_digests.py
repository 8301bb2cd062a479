"""Which pictures a bundle's flows were fitted to and calibrated with, and what tells sets of pictures apart.

A calibration by pictures of the fit would promise too much, and a test on either flatters. A bundle keeps the
first 16 digits of the sha256 of each file, sorted, a line each: of a million other pictures the chance that
one is taken for one of a thousand of these is 5 in 10^11.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from flows.fastflow.bundle.bundle import BundleError, read_verified
from flows.fastflow.manifest import Manifest

FIT_IMAGES = "report/fit_pictures.txt"
CALIBRATION_IMAGES = "report/calibration_pictures.txt"
_DIGITS = 16
_MAX_BYTES = 4 * 2**20


class ImageDigests:
    """The pictures that flows were fitted to, or calibrated with.

    Args:
        digests: their sha256, or the first digits of it.
    """

    def __init__(self, digests: Iterable[str]) -> None:
        self._digests = frozenset(digest[:_DIGITS] for digest in digests)

    def __contains__(self, sha256: str) -> bool:
        return sha256[:_DIGITS] in self._digests

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ImageDigests) and self._digests == other._digests

    def __hash__(self) -> int:
        return hash(self._digests)

    def __len__(self) -> int:
        return len(self._digests)


def fingerprint(hashes: Iterable[str]) -> str:
    """One sha256 for a set of files, whatever their names and order."""
    return hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()


def format_digests(hashes: Iterable[str]) -> bytes:
    """The file of a bundle, of the sha256 of each picture's file."""
    return "".join(f"{sha256[:_DIGITS]}\n" for sha256 in sorted(hashes)).encode()


def read_digests(bundle: Path, manifest: Manifest, name: str = FIT_IMAGES) -> ImageDigests | None:
    """Read a file of a bundle; None where it has none, as those made before there was one.

    Raises:
        BundleError: the file was changed.
    """
    if name not in manifest.files:
        return None
    lines = read_verified(bundle, manifest, name, _MAX_BYTES).decode("ascii", "replace").split()
    if any(len(line) != _DIGITS for line in lines):
        raise BundleError(f"{bundle / name} is no list of digests")
    return ImageDigests(lines)
