"""Masks that cannot be used, without a picture, of another size, damaged, or that mark odd things."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from training.datasets.check.findings import Finding, Kind, within
from training.datasets.masks import read_mask, uncounted
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

    with ThreadPoolExecutor(threads) as pool:
        found = [finding for finding in pool.map(look, samples) if finding is not None]
    used = {sample.mask for sample in samples}
    orphans = [named(mask) for mask in masks if mask not in used]
    found += [_warning("mask_without_picture", [name], f"no picture goes with {name}") for name in orphans]
    without = [s for s in samples if s.defect is not None and s.mask is None]
    if any(sample.mask for sample in samples):
        found += [
            _warning("defect_without_mask", [named(s.path)], f"{named(s.path)} has no mask") for s in without
        ]
    return found


def _warning(kind: Kind, files: list[str], message: str) -> Finding:
    return Finding(kind=kind, severity="warning", files=files, message=message)
