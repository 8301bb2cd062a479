"""The good images of a run, and their split into fit and calibration."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows.fastflow.bundle.image_digests import fingerprint
from flows.fastflow.calibration.images_per_part import (
    PARTS,
    is_single_image,
    number_by_appearance,
    parts_from_names,
    pick_one_per_part,
)
from flows.fastflow.files.plain_files import file_hashes
from flows.fastflow.manifest import DataRecord
from training.config.augmentation import AugmentConfig
from training.config.run_config import RunConfig
from training.data.augment import variants
from training.data.layout import licence, test_samples, train_images
from training.data.pinned_images import PinnedImage
from training.data.sample import DatasetError
from training.data.split import Split, require_enough, share, split, without_copies
from training.data.tiles import Tile, TrainingTile


@dataclass(frozen=True)
class TrainingImages:
    """Good images without copies.

    Attributes:
        part_numbers: (N,), the part in each image, see `flows.fastflow.calibration.images_per_part`.
        copies: number of byte-for-byte copies left out.
    """

    paths: Sequence[Path]
    hashes: Sequence[str]
    part_numbers: NDArray[np.int64]
    split: Split
    copies: int
    licence: str | None

    @property
    def held_out(self) -> list[Path]:
        """The images to calibrate with, one per part, which the fit never sees, but for a starter's."""
        return [self.paths[i] for i in self.split.calibration]

    @property
    def pinned(self) -> list[PinnedImage]:
        """All files with the digests of their content."""
        return [PinnedImage(*one) for one in zip(self.paths, self.hashes, strict=True)]

    @property
    def pinned_held_out(self) -> list[PinnedImage]:
        """The files of `held_out` with the digests of their content."""
        return [PinnedImage(self.paths[i], self.hashes[i]) for i in self.split.calibration]

    @property
    def part_count(self) -> int | None:
        """Number of parts in the images; None if each image shows another part."""
        count = int(self.part_numbers.max()) + 1
        return None if count == len(self.paths) else count

    @property
    def not_fitted(self) -> NDArray[np.int64]:
        """Rows outside the fit: the images to calibrate with, and other images of their parts."""
        return np.setdiff1d(np.arange(len(self.paths)), self.split.seen)

    def views(self, augment: AugmentConfig, seed: int, tiles: Sequence[Tile]) -> list[TrainingTile]:
        """List the inputs of the backbone: every image in use, then changed copies of those to fit.

        Args:
            tiles: tiles of the images, from `tiles.choose_tiles`.
        """
        by_image: dict[int, list[int]] = {}
        for tile in tiles:
            by_image.setdefault(tile.image, []).append(tile.number)
        used = {*self.split.seen.tolist(), *self.split.calibration.tolist()}
        unchanged = [
            TrainingTile(self.paths[tile.image], self.hashes[tile.image], tile.image, None, tile.number)
            for tile in tiles
            if tile.image in used
        ]
        return unchanged + [
            TrainingTile(self.paths[i], self.hashes[i], i, variant, number)
            for i in self.split.fit.tolist()
            for variant in variants(augment, self.hashes[i], seed)
            for number in by_image[i]
        ]

    def rows(self, views: Sequence[TrainingTile]) -> Split:
        """Split the views like their images; only rows to fit include changed copies."""
        image = np.array([view.image for view in views])
        unchanged = np.array([view.variant is None for view in views])

        def of(images: NDArray[np.int64], allowed: NDArray[np.bool_]) -> NDArray[np.int64]:
            return np.flatnonzero(np.isin(image, images) & allowed)

        return Split(
            fit=of(self.split.fit, np.ones_like(unchanged)),
            calibration=of(self.split.calibration, unchanged),
            validation=of(self.split.validation, unchanged),
        )

    @property
    def record(self) -> DataRecord:
        """The record of the images in the bundle."""
        return DataRecord(
            fingerprint=fingerprint(self.hashes),
            licence=self.licence,
            n_fit=len(self.split.seen),
            n_calibration=len(self.held_out),
        )


def find_training_images(config: RunConfig, data: Path, category: str) -> TrainingImages:
    """Find the good images of a category and split them, reading only training images.

    Raises:
        DatasetError: there is no such category, too few images, or equal files of different parts.
        PartsError: the category's parts.txt cannot be used.
        FileError: images cannot be read; they are named.
    """
    files = train_images(data, category)
    digests = file_hashes(files)
    named_parts = parts_from_names([path.name for path in files], data / category)
    part_of = (
        np.arange(len(files))
        if named_parts is None
        else number_by_appearance(_share_parts(named_parts, digests))
    )
    _require_one_part(files, digests, part_of)
    paths, hashes = without_copies(files, digests)
    copies = len(files) - len(paths)
    number = dict(zip(files, part_of.tolist(), strict=True))
    # Numbered again: a part may have had only copies.
    _, shown = np.unique([number[path] for path in paths], return_inverse=True)
    drawn = pick_one_per_part(shown, hashes)
    try:
        if config.starter:
            parts = share(len(drawn))
        else:
            require_enough(len(paths))
            parts = split(len(drawn), config.calibration.fraction, config.seed)
            if (stopping := config.fit.stopping) is not None:
                parts = parts.with_validation(stopping.fraction, config.seed)
    except DatasetError as error:
        why = [str(error)]
        if len(drawn) < len(paths):
            why.append(f"Each part counts as one: by {PARTS}, {len(paths)} images show {len(drawn)}")
        if copies:
            why.append(
                f"Copies count once: of {len(files)} files, {copies} are the same as another, byte for byte"
            )
        if kept := _kept_for_the_test(data, category, files):
            why.append(f"Kept for the test: {kept} more")
        raise DatasetError(". ".join(why)) from error
    return TrainingImages(
        paths=paths,
        hashes=hashes,
        part_numbers=shown,
        split=parts.of_images(shown, drawn),
        copies=copies,
        licence=licence(data, category),
    )


def _kept_for_the_test(data: Path, category: str, found: Sequence[Path]) -> int:
    """Count the good images in the same folders that are kept for the test."""
    folders = {path.parent for path in found}
    with suppress(DatasetError, OSError):  # there is no test set, or none that can be listed
        samples = test_samples(data, category)
        return sum(sample.defect is None and sample.path.parent in folders for sample in samples)
    return 0


def _share_parts(parts: Sequence[str], hashes: Sequence[str]) -> list[str]:
    """Give copies without a part in their names the part of their equal file."""
    of_content: dict[str, str] = {}
    for part, sha256 in sorted(zip(parts, hashes, strict=True), key=lambda one: is_single_image(one[0])):
        of_content.setdefault(sha256, part)
    return [
        of_content[sha256] if is_single_image(part) else part
        for part, sha256 in zip(parts, hashes, strict=True)
    ]


def _require_one_part(paths: Sequence[Path], hashes: Sequence[str], part_of: NDArray[np.int64]) -> None:
    """Require copies to show the same part: otherwise they could lie on both sides of the split.

    Without a parts.txt there is nothing to check.
    """
    if len(np.unique(part_of)) == len(paths):
        return
    first: dict[str, int] = {}
    for i, sha256 in enumerate(hashes):
        k = first.setdefault(sha256, i)
        if part_of[k] != part_of[i]:
            raise DatasetError(
                f"{paths[k].name} and {paths[i].name} are the same file, and by {PARTS} they show different "
                "parts: correct a name, or take one away"
            )
