"""Recalibration of a version with a folder of good images, as `flowgauge calibrate` does it."""

from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from app import verdict
from app.access import COMMAND_LINE
from app.calibrations import CalibrationFiles, InForce, Renewal, Slot
from app.category_settings import SettingsFiles
from app.problems import Problem
from app.recalibration import Measured, UnfitPicturesError, expect_fit_to_calibrate, renewal, warnings_of
from flows.fastflow import fit_pictures, models_folder
from flows.fastflow.calibration import Calibrator, measure
from flows.fastflow.detector import Detector, own_calibrator
from flows.fastflow.engines import pick_engine, slower_here
from flows.fastflow.images import IMAGE_SUFFIXES, ImageError, read
from flows.fastflow.manifest import Precision
from flows.fastflow.parts import PARTS, numbered, one_of_each
from flows.fastflow.picture_files import pictures_below
from flows.fastflow.plain_files import escaped, file_hashes

_LEVELS: Final = 4  # above the images' folder, in which a parts.txt is looked for


class FolderError(ValueError):
    """A folder without images, or with images in folders below it that were not asked for."""


class Images(NamedTuple):
    """Images of a folder by their names in it, the part that each shows, and the file that says so."""

    files: dict[str, Path]
    parts: NDArray[np.int64]
    parts_file: Path | None


def find_images(folder: Path, *, recursive: bool) -> Images:
    """Find the images of a folder. Below it defective parts and masks may lie.

    Raises:
        FolderError: see there.
        PartsError: the parts.txt does not tell the part of an image.
    """
    if not folder.is_dir():
        raise FolderError(f"there is no folder {folder}")
    files = pictures_below(folder) if recursive else pictures_below(folder, lambda _: None)
    if not files:
        raise FolderError(f"{folder} holds no pictures ({' '.join(sorted(IMAGE_SUFFIXES))})")
    below = [name for name in files if "/" in name]
    if below and not recursive:
        raise FolderError(
            f"{folder} has folders with pictures in it, such as {escaped(below[0])}: name the one with the "
            "good parts, or add --recursive if all of them are good"
        )
    inner = {folder / above for name in below for above in PurePosixPath(name).parents[:-1]}
    # Its images of one part would be taken for several parts, and promise too much.
    if told := sorted(one for one in inner if (one / PARTS).exists()):
        raise FolderError(
            f"{told[0] / PARTS} tells which of the pictures below it show the same part, and is not read for "
            f"{folder}: name the folder of the {PARTS}, {told[0]}"
        )
    # It lies in the category's folder: two levels above validation/good, three above Data/Images/Normal.
    looked = [folder, *folder.absolute().parents[:_LEVELS]]
    parts_folder = next((one for one in looked if (one / PARTS).exists()), None)
    parts = numbered([file.name for file in files.values()], parts_folder or folder)
    return Images(files, parts, None if parts_folder is None else parts_folder / PARTS)


class FolderCalibration:
    """A version to calibrate, loaded.

    Args:
        models: the models folder.
        category: of the version.
        version: its name; None for the active one, which must stay active meanwhile.
        engine: the precision to calibrate.
        station: for this station alone, None for all without one of their own.
        device: where it is computed.

    Attributes:
        version: the version's name.

    Raises:
        BundleError, WeightsError, EngineError, DeviceError: it cannot be loaded.
        UnfitPicturesError: it was made to reject most good parts.
    """

    def __init__(
        self,
        models: Path,
        category: str,
        version: str | None,
        engine: Precision,
        station: str | None,
        device: str,
    ) -> None:
        folder = models_folder.resolve(models, category, version)
        self.version = folder.name
        self._models = models
        self._must_stay_active = version is None
        # In float32, which every bundle can be checked by; the engine may have no calibration yet.
        self._loaded = Detector.load(folder, device=device)
        self._scorer = self._loaded.scorer.with_engine(pick_engine(engine, self._loaded.device))
        self._slot = Slot(self._loaded.manifest, self._loaded.sha256, engine, station)
        self._fitted = fit_pictures.load(folder, self._loaded.manifest)
        self._target_fpr = self._loaded.calibrator.target_fpr
        if self._target_fpr > 0.5:  # as training refuses, see `training.config`
            raise UnfitPicturesError(
                f"{category}/{folder.name} was made to reject up to {self._target_fpr:.0%} of good parts. "
                "Above half of them there is no pixel threshold to speak of: train it again with "
                "--target-fpr 0.5 or less"
            )

    def measure(self, images: Images, *, quiet: bool) -> dict[str, Measured]:
        """Score one image of each part, one by one, as parts on the line come; returns them by name.

        Raises:
            UnfitPicturesError: an image may not be used or cannot be read; it is named.
        """
        names = list(images.files)
        hashes = file_hashes(list(images.files.values()))
        # All images of a part count: if one was fitted, the part is known.
        expect_fit_to_calibrate(list(zip(names, hashes, strict=True)), self._fitted)
        measured, unreadable = {}, []
        rows = one_of_each(images.parts, hashes).tolist()
        for row in track(rows, "Scoring", console=Console(stderr=True), transient=True, disable=quiet):
            image = images.files[names[row]]
            try:
                [scored] = self._scorer.score([read(image, sample_bits=self._slot.manifest.sample_bits)])
            except ImageError as error:
                unreadable.append(str(error))
                continue
            measured[names[row]] = Measured(hashes[row], measure(scored))
        if unreadable:
            raise UnfitPicturesError(
                "\n".join(["these pictures cannot be read, nothing was changed:", *unreadable])
            )
        return measured

    def put_in_force(self, measured: list[Measured], reason: str) -> dict[str, Any]:
        """Calibrate with the measured images from now on; returns what changed, JSON.

        Raises:
            UnfitPicturesError: it cannot be done; the message says why.
        """
        slot = self._slot
        calibrations = CalibrationFiles(self._models)

        def edit(_: InForce | None) -> Renewal:
            # Measuring may have taken minutes. Nothing is activated from here on: this has its lock.
            active = models_folder.active_version(self._models, slot.manifest.category)
            if self._must_stay_active and active != self.version:
                raise Problem(
                    "conflict",
                    f"Another version was activated since {slot.manifest.category}/{self.version} was "
                    "loaded; nothing was changed. Start again, or name that one by --version.",
                )
            by = COMMAND_LINE.actor
            return renewal(slot, measured, target_fpr=self._target_fpr, by=by, reason=reason)

        try:
            settings = SettingsFiles(self._models).get(slot.manifest.category)
            found = calibrations.find(slot)
            after = calibrations.change(slot, edit)
        except Problem as problem:
            raise UnfitPicturesError(problem.detail) from problem
        assert after is not None  # noqa: S101  (edit gives one)
        own = own_calibrator(slot.manifest, slot.sha256, slot.precision)
        before = own if found is None else found.calibrator

        def shown(calibrator: Calibrator) -> dict[str, Any]:
            return verdict.shown(verdict.thresholds(calibrator, settings)).model_dump()

        warnings = warnings_of(before, after.calibrator, settings, self._fitted)
        if slower := slower_here(slot.precision, self._loaded.device):
            warnings.append(slower)
        return {
            "calibration": after.calibrator.identifier,
            "fingerprint": after.renewal.pictures,
            "before": None if before is None else shown(before),
            "threshold": shown(after.calibrator),
            "warnings": warnings,
        }
