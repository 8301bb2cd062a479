"""Digests of the images that a bundle's flows were fitted to or calibrated with.

A calibration with images of the fit would promise too much, and a test on either would look too good. A
bundle keeps the first 16 digits of the sha256 of each file, sorted, one per line. Among a million other
images, the chance that one is mistaken for one of a thousand of these is 5 in 10^11.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from flows.fastflow.bundle.bundle import BundleError, read_verified
from flows.fastflow.manifest import Manifest

FIT_IMAGES = "report/fit_pictures.txt"
CALIBRATION_IMAGES = "report/calibration_pictures.txt"
_DIGITS = 16
_MAX_BYTES = 4 * 2**20


class ImageDigests(frozenset[str]):
    """Set of images, known by the first digits of their sha256.

    Args:
        digests: the sha256 of the images' files, or their first digits.
    """

    def __new__(cls, digests: Iterable[str]) -> Self:
        return super().__new__(cls, (digest[:_DIGITS] for digest in digests))

    def __contains__(self, sha256: object) -> bool:
        return super().__contains__(str(sha256)[:_DIGITS])


def fingerprint(hashes: Iterable[str]) -> str:
    """Compute one sha256 for a set of files, independent of their names and order."""
    return hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()


def format_digests(hashes: Iterable[str]) -> bytes:
    """Format the sha256 of images' files as a file of a bundle."""
    return "".join(f"{sha256[:_DIGITS]}\n" for sha256 in sorted(hashes)).encode()


def read_digests(bundle: Path, manifest: Manifest, name: str = FIT_IMAGES) -> ImageDigests | None:
    """Read digests from a bundle; None if it has no such file.

    Raises:
        BundleError: the file was changed, or is not a list of digests.
    """
    if name not in manifest.files:
        return None
    lines = read_verified(bundle, manifest, name, _MAX_BYTES).decode("ascii", "replace").split()
    if any(len(line) != _DIGITS for line in lines):
        raise BundleError(f"{bundle / name} is not a list of digests")
    return ImageDigests(lines)
