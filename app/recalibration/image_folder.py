"""Good images of a folder for `flowgauge calibrate`: search, grouping by part, scoring."""

from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from app.recalibration.recalibrate import MeasuredImage, require_usable_images
from flows.fastflow.bundle.image_digests import ImageDigests
from flows.fastflow.calibration.calibrator import measure_image
from flows.fastflow.calibration.images_per_part import PARTS, number_parts, pick_one_per_part
from flows.fastflow.detector import Detector
from flows.fastflow.files.plain_files import escape_name, file_hashes
from flows.fastflow.imaging.decoder import read_image
from flows.fastflow.imaging.image_errors import ImageError
from flows.fastflow.imaging.image_files import find_image_files
from flows.fastflow.imaging.image_formats import IMAGE_SUFFIXES
from flows.fastflow.progress import JsonProgress

_MAX_LEVELS: Final = 4  # levels above the images' folder that may hold a parts.txt


class FolderError(ValueError):
    """A folder that is unusable for a calibration: no images, unreadable ones, or unknown parts."""


class FolderImages(NamedTuple):
    """Images of a folder by relative name, the part number of each, and the file that defines parts."""

    files: dict[str, Path]
    parts: NDArray[np.int64]
    parts_file: Path | None


def find_images(folder: Path, *, recursive: bool) -> FolderImages:
    """Find the images of a folder; subfolders may hold defective parts and masks.

    Raises:
        FolderError, PartsError: the folder is unusable for a calibration.
    """
    files = find_image_files(folder) if recursive else find_image_files(folder, lambda _: None)
    if not files:
        raise FolderError(f"{folder} holds no images ({' '.join(sorted(IMAGE_SUFFIXES))})")
    below = [name for name in files if "/" in name]
    if below and not recursive:
        raise FolderError(
            f"{folder} has folders with images in it, such as {escape_name(below[0])}: name the one with "
            "the good parts, or add --recursive if all of them are good"
        )
    inner = {folder / above for name in below for above in PurePosixPath(name).parents[:-1]}
    # Otherwise images of one part would count as several parts, and the calibration would promise too much.
    if nested := sorted(path for path in inner if (path / PARTS).exists()):
        raise FolderError(
            f"{nested[0] / PARTS} groups the images below it by part, and is not read for {folder}: name its "
            f"folder, {nested[0]}"
        )
    # parts.txt is in the category's folder: two levels above validation/good, three above Data/Images/Normal.
    candidates = [folder, *folder.absolute().parents[:_MAX_LEVELS]]
    parts_folder = next((path for path in candidates if (path / PARTS).exists()), None)
    parts = number_parts([file.name for file in files.values()], parts_folder or folder)
    return FolderImages(files, parts, None if parts_folder is None else parts_folder / PARTS)


def measure_images(
    detector: Detector,
    images: FolderImages,
    fitted: ImageDigests | None,
    progress: JsonProgress | None = None,
    *,
    quiet: bool = False,
) -> dict[str, MeasuredImage]:
    """Score one image of each part, one by one as on the line; return them by name.

    Raises:
        Problem: an image is unusable, see `require_usable_images`; the message names it.
        FolderError: images are unreadable; the message names all of them.
    """
    names = list(images.files)
    hashes = file_hashes(list(images.files.values()))
    # Check all images: if one of a part was fitted, the model knows the part.
    require_usable_images(list(zip(names, hashes, strict=True)), fitted)
    measured, unreadable = {}, []
    rows = pick_one_per_part(images.parts, hashes).tolist()
    if progress is not None:
        tracked = progress.track(rows, "calibrate", len(rows))
    else:
        tracked = iter(track(rows, "Scoring", console=Console(stderr=True), transient=True, disable=quiet))
    for row in tracked:
        try:
            image = read_image(images.files[names[row]], sample_bits=detector.manifest.sample_bits)
        except ImageError as error:
            unreadable.append(str(error))
            continue
        [scored] = detector.scorer.score([image])
        measured[names[row]] = MeasuredImage(hashes[row], measure_image(scored))
    if unreadable:
        raise FolderError("\n".join(["these images cannot be read, nothing was changed:", *unreadable]))
    return measured
