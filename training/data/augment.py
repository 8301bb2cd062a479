"""Augmentation: changed copies of good images, mirrored, turned, brighter or of another contrast.

Features of a frozen backbone are computed once, so the copies are drawn once by seed, not in every epoch.
Images held out to calibrate stay unchanged: their scores must be those of real parts.
"""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from training.config.augmentation import AugmentConfig
from training.data.pinned_images import PinnedImage, size_of

Image = NDArray[np.uint8]
_NOT_SQUARE = (
    "augment.right_angles needs square images; this one is {width}x{height}. A turn by 180 degrees is "
    "augment.hflip and augment.vflip together"
)


class AugmentError(ValueError):
    """An image cannot be augmented as the settings require."""


@dataclass(frozen=True)
class Variant:
    """One change of an image.

    Attributes:
        mirrored: left and right exchanged, before the turns.
        quarter_turns: number of turns by 90 degrees, counter-clockwise.
        degrees: further turn about the centre, counter-clockwise; the border is reflected.
        brightness: share of white added.
        contrast: factor on the difference from the image's mean.
    """

    mirrored: bool = False
    quarter_turns: int = 0
    degrees: float = 0
    brightness: float = 0
    contrast: float = 1

    def apply(self, image: Image) -> Image:
        """Change an image (H, W, 3) and keep its size.

        Raises:
            AugmentError: an image that is not square should be turned by a right angle.
        """
        height, width = image.shape[:2]
        if self.quarter_turns % 2 and height != width:
            raise AugmentError(_NOT_SQUARE.format(width=width, height=height))
        changed = np.rot90(image[:, ::-1] if self.mirrored else image, self.quarter_turns)
        changed = np.ascontiguousarray(changed)
        if self.degrees:
            centre = ((width - 1) / 2, (height - 1) / 2)
            turn = cv2.getRotationMatrix2D(centre, self.degrees, 1.0)
            changed = np.asarray(
                cv2.warpAffine(
                    changed, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
                ),
                dtype=np.uint8,
            )
        if self.brightness or self.contrast != 1:
            mean = float(changed.mean())
            levels = (np.arange(256) - mean) * self.contrast + mean + 255 * self.brightness
            changed = levels.round().clip(0, 255).astype(np.uint8)[changed]
        return changed


def require_square(images: Sequence[PinnedImage]) -> None:
    """Require square images for turns by right angles, before features are computed.

    Args:
        images: images; only their headers are read.

    Raises:
        AugmentError: an image is not square; it is named.
        ImageError: a header cannot be read; the image is named.
        DatasetError: its file is gone or was changed; it is named.
    """
    for image in images:
        height, width = size_of(image)
        if height != width:
            raise AugmentError(f"{image.path}: {_NOT_SQUARE.format(width=width, height=height)}")


def variants(config: AugmentConfig, sha256: str, seed: int) -> list[Variant]:
    """Draw the variants of one image.

    They depend only on the image's content and the seed. With only mirrors and right angles no two are alike,
    so there are at most 7.
    """
    if not config.active:
        return []
    rng = np.random.default_rng(int(hashlib.sha256(f"{seed} {sha256}".encode()).hexdigest(), 16))
    kinds = _kinds(config)
    if not config.jitters:
        kinds = kinds[1:]  # without the unchanged image, which is fitted anyway
    order = [kinds[i] for i in rng.permutation(len(kinds))]
    count = config.copies if config.jitters else min(config.copies, len(order))
    return [_draw(config, kind, rng) for kind in itertools.islice(itertools.cycle(order), count)]


def _kinds(config: AugmentConfig) -> Sequence[tuple[bool, int]]:
    """List all allowed combinations (mirrored, quarter turns); the unchanged one is the first."""
    steps = [
        *([(True, 0)] if config.hflip else []),
        *([(True, 2)] if config.vflip else []),
        *([(False, 1)] if config.right_angles else []),
    ]
    kinds = [(False, 0)]
    for mirrored, turns in kinds:  # the list grows until it is closed
        for flips, quarter_turns in steps:
            # A turn before a mirror is the opposite turn after it.
            kind = (mirrored != flips, ((-turns if flips else turns) + quarter_turns) % 4)
            if kind not in kinds:
                kinds.append(kind)
    return kinds


def _draw(config: AugmentConfig, kind: tuple[bool, int], rng: np.random.Generator) -> Variant:
    degrees, brightness, contrast = rng.uniform(-1, 1, 3)
    return Variant(
        mirrored=kind[0],
        quarter_turns=kind[1],
        degrees=round(config.degrees * degrees, 3),
        brightness=round(config.brightness * brightness, 4),
        contrast=round(1 + config.contrast * contrast, 4),
    )
