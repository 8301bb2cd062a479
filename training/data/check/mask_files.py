"""Masks that cannot be used, without an image, of another size, damaged, or that mark odd things."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from flows.fastflow.imaging.decoder import read_image
from training.data.check.findings import DataFinding, Kind, within
from training.data.check.image_statistics import ImageStatistics
from training.data.folders import MASKS, is_good, match_masks
from training.data.masks import ignored_share, read_mask
from training.data.sample import Sample

_NEARLY_ALL = 0.95  # of an image's pixels
_MUCH = 0.05  # of what is drawn in a mask


def check_masks(
    samples: Sequence[Sample],
    masks: Sequence[Path],
    train: Sequence[Path],
    images: Mapping[Path, ImageStatistics],
    folder: Path,
    *,
    threads: int,
) -> list[DataFinding]:
    """Read every mask and hold it against its image.

    Args:
        samples: the test images.
        masks: every mask there is.
        train: the good images that are learned from.
        images: all of these that could be decoded.
        folder: the category's folder, which names are relative to.
        threads: masks read at a time.
    """

    def named(path: Path) -> str:
        return path.relative_to(folder).as_posix()

    def look(sample: Sample) -> DataFinding | None:
        if sample.mask is None or sample.path not in images:
            return None
        image = images[sample.path]
        files = [named(sample.mask), named(sample.path)]
        try:
            marked = float(read_mask(sample.mask, image.size).mean())
            dark = ignored_share(sample.mask)
        except (ValueError, OSError) as error:
            said = within(str(error), folder)
            return _warning("mask_unusable", files, f"{files[0]} cannot be used: {said}")
        if sample.defect is None:
            said = f"{files[0]} marks {marked:.1%} of {files[1]}, which lies among the good parts"
            return _warning("mask_of_good", files, said) if marked else None
        if not marked:
            return _warning("mask_empty", files, f"{files[0]} marks no pixel of {files[1]}")
        if marked > _NEARLY_ALL:
            return _warning(
                "mask_full",
                files,
                f"{files[0]} marks {marked:.0%} of {files[1]}: an alpha channel does not count, white does",
            )
        if dark > _MUCH:
            return _warning(
                "mask_shades",
                files,
                f"{dark:.0%} of what is drawn in {files[0]} is darker than half of the brightest, in areas: "
                "that does not count as defective",
            )
        return None

    used = {sample.mask for sample in samples}
    of_good = _masks_of_good([mask for mask in masks if mask not in used], samples, train)
    looked = [*samples, *(Sample(path, None, mask) for path, mask in of_good.items())]
    with ThreadPoolExecutor(threads) as pool:
        found = [finding for finding in pool.map(look, looked) if finding is not None]
    used |= set(of_good.values())
    orphans = [named(mask) for mask in masks if mask not in used]
    found += [_warning("mask_without_picture", [name], f"no image goes with {name}") for name in orphans]
    without = [s for s in samples if s.defect is not None and s.mask is None]
    if any(sample.mask for sample in samples):
        found += [
            _warning("defect_without_mask", [named(s.path)], f"{named(s.path)} has no mask") for s in without
        ]
    return found


def _masks_of_good(
    masks: Sequence[Path], samples: Sequence[Sample], train: Sequence[Path]
) -> dict[Path, Path]:
    """The masks of good parts, which some tools write for every image; by image.

    Of those that are no defect's: what lies in a folder of good parts, and of what lies beside folders, where
    there is one kind of defect, what marks nothing. Numbers may begin anew in each folder of images.
    """
    good = [sample.path for sample in samples if sample.defect is None]
    left = [mask for mask in masks if is_good(mask.parent) or (_is_flat(mask) and _marks_nothing(mask))]
    tested = match_masks(left, good)
    return tested | match_masks([mask for mask in left if mask not in tested.values()], train)


def _is_flat(mask: Path) -> bool:
    return mask.is_file() and mask.parent.name.lower() in MASKS


def _marks_nothing(mask: Path) -> bool:
    try:
        return not read_image(mask).any()
    except (ValueError, OSError):
        return False


def _warning(kind: Kind, files: list[str], message: str) -> DataFinding:
    return DataFinding(kind=kind, severity="warning", files=files, message=message)
