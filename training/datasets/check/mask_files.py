"""Masks that cannot be used, without a picture, of another size, damaged, or that mark odd things."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from flows.fastflow.images import FILE_LIMITS, orientation_of, read_bytes
from training.datasets.check.findings import Finding, Kind, within
from training.datasets.folders import is_good, masks_of
from training.datasets.masks import files_of, read_mask, uncounted
from training.datasets.sample import Sample

_NEARLY_ALL = 0.95  # of a picture's pixels
_MUCH = 0.05  # of what is drawn in a mask


def check_masks(
    samples: Sequence[Sample],
    masks: Sequence[Path],
    sizes: Mapping[Path, tuple[int, int]],
    folder: Path,
    *,
    threads: int,
) -> list[Finding]:
    """Read every mask and hold it against its picture.

    Args:
        samples: the test pictures.
        masks: every mask there is.
        sizes: (height, width) of the test pictures that could be decoded.
        folder: the category's folder, which names are relative to.
        threads: masks read at a time.
    """

    def named(path: Path) -> str:
        return path.relative_to(folder).as_posix()

    def look(sample: Sample) -> Finding | None:
        if sample.mask is None or sample.path not in sizes:
            return None
        files = [named(sample.mask), named(sample.path)]
        try:
            marked = float(read_mask(sample.mask, sizes[sample.path]).mean())
            dark = uncounted(sample.mask)
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

    good = [sample.path for sample in samples if sample.defect is None]
    of_good = masks_of([mask for mask in masks if is_good(mask.parent)], good)
    with ThreadPoolExecutor(threads) as pool:
        looked = [*samples, *(Sample(path, None, mask) for path, mask in of_good.items())]
        found = [finding for finding in pool.map(look, looked) if finding is not None]
    turned = [sample for sample in samples if sample.path in sizes and _may_lie_otherwise(sample)]
    if turned:
        found.append(
            _warning(
                "mask_turned",
                [named(sample.path) for sample in turned],
                f"{len(turned)} of the pictures with masks are turned by their EXIF orientation and their "
                f"masks are not, {named(turned[0].path)} the first: masks must be drawn on upright pictures",
            )
        )
    used = {sample.mask for sample in looked}
    orphans = [named(mask) for mask in masks if mask not in used]
    found += [_warning("mask_without_picture", [name], f"no picture goes with {name}") for name in orphans]
    without = [s for s in samples if s.defect is not None and s.mask is None]
    if any(sample.mask for sample in samples):
        found += [
            _warning("defect_without_mask", [named(s.path)], f"{named(s.path)} has no mask") for s in without
        ]
    return found


def _may_lie_otherwise(sample: Sample) -> bool:
    """Whether a picture is turned by EXIF and its mask is not: on the file's own pixels it lies elsewhere."""
    if sample.mask is None or _orientation(sample.path) == 1:
        return False
    return any(_orientation(file) == 1 for file in files_of(sample.mask))


def _orientation(file: Path) -> int:
    try:
        return orientation_of(read_bytes(file), FILE_LIMITS)
    except (ValueError, OSError):  # which is told elsewhere
        return 1


def _warning(kind: Kind, files: list[str], message: str) -> Finding:
    return Finding(kind=kind, severity="warning", files=files, message=message)
