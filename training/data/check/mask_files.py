"""Check of masks: unusable files, orphans, and masks that mark too little or too much."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from flows.fastflow.imaging.decoder import read_image
from training.data.check.findings import DataFinding, relative_message
from training.data.check.image_statistics import ImageStatistics
from training.data.folders import MASKS, is_good, match_masks
from training.data.masks import ignored_share, read_mask
from training.data.sample import Sample

_FULL = 0.95  # share of an image's pixels
_MAX_IGNORED = 0.05  # share of the drawn pixels in a mask


def check_masks(
    samples: Sequence[Sample],
    masks: Sequence[Path],
    train: Sequence[Path],
    images: Mapping[Path, ImageStatistics],
    folder: Path,
    *,
    threads: int,
) -> list[DataFinding]:
    """Read every mask and compare it with its image.

    Args:
        images: all of these images that could be decoded.
        folder: the category's folder; names are relative to it.
    """
    used = {sample.mask for sample in samples}
    of_good = _masks_of_good([mask for mask in masks if mask not in used], samples, train)
    checked = [*samples, *(Sample(path, None, mask) for path, mask in of_good.items())]
    with ThreadPoolExecutor(threads) as pool:
        results = pool.map(partial(_check_mask, images=images, folder=folder), checked)
        findings = [finding for finding in results if finding is not None]
    used |= set(of_good.values())
    for name in [_name(mask, folder) for mask in masks if mask not in used]:
        message = f"no image goes with {name}"
        findings.append(DataFinding(kind="mask_without_picture", files=[name], message=message))
    if any(sample.mask for sample in samples):
        unmasked = [one.path for one in samples if one.defect is not None and one.mask is None]
        for name in [_name(path, folder) for path in unmasked]:
            message = f"{name} has no mask"
            findings.append(DataFinding(kind="defect_without_mask", files=[name], message=message))
    return findings


def _check_mask(
    sample: Sample, *, images: Mapping[Path, ImageStatistics], folder: Path
) -> DataFinding | None:
    if sample.mask is None or sample.path not in images:
        return None
    mask, image = files = [_name(sample.mask, folder), _name(sample.path, folder)]
    try:
        marked = float(read_mask(sample.mask, images[sample.path].size).mean())
        ignored = ignored_share(sample.mask)
    except (ValueError, OSError) as error:
        reason = relative_message(str(error), folder)
        return DataFinding(kind="mask_unusable", files=files, message=f"{mask} cannot be used: {reason}")
    if sample.defect is None:
        message = f"{mask} marks {marked:.1%} of {image}, which lies among the good parts"
        return DataFinding(kind="mask_of_good", files=files, message=message) if marked else None
    if not marked:
        return DataFinding(kind="mask_empty", files=files, message=f"{mask} marks no pixel of {image}")
    if marked > _FULL:
        message = f"{mask} marks {marked:.0%} of {image}: an alpha channel does not count, white does"
        return DataFinding(kind="mask_full", files=files, message=message)
    if ignored > _MAX_IGNORED:
        message = (
            f"{ignored:.0%} of what is drawn in {mask} is darker than half of the brightest, in areas: "
            "that does not count as defective"
        )
        return DataFinding(kind="mask_shades", files=files, message=message)
    return None


def _masks_of_good(
    masks: Sequence[Path], samples: Sequence[Sample], train: Sequence[Path]
) -> dict[Path, Path]:
    """Match masks to good images, which some tools write for every image.

    Candidates are masks in a folder of good parts, and empty masks directly in the folder of masks. The test
    images come first: numbers may restart in each folder of images.
    """
    good = [sample.path for sample in samples if sample.defect is None]
    candidates = [mask for mask in masks if is_good(mask.parent) or (_is_flat(mask) and _is_empty(mask))]
    tested = match_masks(candidates, good)
    return tested | match_masks([mask for mask in candidates if mask not in tested.values()], train)


def _is_flat(mask: Path) -> bool:
    return mask.is_file() and mask.parent.name.lower() in MASKS


def _is_empty(mask: Path) -> bool:
    try:
        return not read_image(mask).any()
    except (ValueError, OSError):
        return False


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()
