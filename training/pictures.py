"""The good pictures that a run learns from, and which of them it holds out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows.fastflow.fit_pictures import fingerprint
from flows.fastflow.manifest import DataRecord
from flows.fastflow.plain_files import file_hashes
from training.augment import AugmentConfig, variants
from training.config import RunConfig
from training.cross import Folds, folds_of, parts_of
from training.datasets.layout import licence, train_images
from training.feature_cache import View
from training.split import Split, without_copies
from training.tiles import Tile


@dataclass(frozen=True)
class Pictures:
    """Good pictures, each file once.

    Attributes:
        paths: the files.
        hashes: sha256 of each.
        parts: for each head which pictures it is fitted to, and which it has not seen.
        folds: of each picture, of a cross calibration; otherwise None.
        copies: files left out because they are equal to others byte for byte.
        licence: of the pictures, or None.
    """

    paths: Sequence[Path]
    hashes: Sequence[str]
    parts: Sequence[Split]
    folds: Folds | None
    copies: int
    licence: str | None

    @property
    def calibrating(self) -> NDArray[np.int64]:
        """The pictures to calibrate with, as `held_out` has them."""
        return self.parts[0].calibration if self.folds is None else np.arange(len(self.paths))

    @property
    def held_out(self) -> list[Path]:
        """The pictures to calibrate with: those that no fit sees, or all where each is held out of one."""
        return [self.paths[i] for i in self.calibrating]

    @property
    def seen(self) -> NDArray[np.int64]:
        """The pictures that have a part in any head's weights."""
        return np.unique(np.concatenate([part.seen for part in self.parts]))

    @property
    def fitted(self) -> NDArray[np.int64]:
        """The pictures that any head is fitted to; of these, changed copies may be made."""
        return np.unique(np.concatenate([part.fit for part in self.parts]))

    def views(self, augment: AugmentConfig, seed: int, tiles: Sequence[Tile]) -> list[View]:
        """What features are computed of: every picture as it is, then changed copies of those to fit.

        Args:
            augment: how they may be changed.
            seed: of the run.
            tiles: of the pictures, from `tiles.choose`.
        """
        by_picture: dict[int, list[int]] = {}
        for tile in tiles:
            by_picture.setdefault(tile.picture, []).append(tile.number)
        as_they_are = [
            View(self.paths[tile.picture], self.hashes[tile.picture], tile.picture, None, tile.number)
            for tile in tiles
        ]
        return as_they_are + [
            View(self.paths[i], self.hashes[i], i, variant, number)
            for i in self.fitted.tolist()
            for variant in variants(augment, self.hashes[i], seed)
            for number in by_picture[i]
        ]

    def rows(self, views: Sequence[View]) -> list[Split]:
        """Which views each head is fitted to, with all copies, and which it has not seen, without."""
        picture = np.array([view.picture for view in views])
        unchanged = np.array([view.variant is None for view in views])

        def of(pictures: NDArray[np.int64], allowed: NDArray[np.bool_]) -> NDArray[np.int64]:
            return np.flatnonzero(np.isin(picture, pictures) & allowed)

        return [
            Split(
                fit=of(part.fit, np.ones_like(unchanged)),
                calibration=of(part.calibration, unchanged),
                validation=of(part.validation, unchanged),
            )
            for part in self.parts
        ]

    @property
    def record(self) -> DataRecord:
        """What the bundle says of them."""
        return DataRecord(
            fingerprint=fingerprint(self.hashes),
            licence=self.licence,
            n_fit=len(self.seen),
            n_calibration=len(self.held_out),
        )


def gather(config: RunConfig, data: Path, category: str) -> Pictures:
    """Find a category's good pictures and divide them. Training pictures alone are read.

    Args:
        config: the run.
        data: folder with the category.
        category: name of the category, and of its sub-folder.

    Raises:
        DatasetError: there is no such category, or too few pictures.
    """
    found = train_images(data, category)
    paths, hashes = without_copies(found, file_hashes(found))
    folds = folds_of(len(paths), config)
    parts = parts_of(len(paths), folds, config.calibration.fraction, config.seed)
    stopping = config.fit.stopping
    if stopping is not None:
        parts = [part.with_validation(stopping.fraction, config.seed) for part in parts]
    return Pictures(paths, hashes, parts, folds, len(found) - len(paths), licence(data, category))
