"""Folders of images, and the folder names that mean good, defective and mask.

Lists are sorted by name, so that a folder always gives the same list.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from flows.fastflow.files.plain_files import escape_name
from flows.fastflow.imaging.image_files import is_image_file
from training.data.sample import DatasetError, Sample

GOOD = ("good", "ok", "normal")
MASKS = ("ground_truth", "masks", "mask")

_OF_MASK = re.compile("(.+)_(mask|gt|labels?)", re.IGNORECASE | re.DOTALL)


def list_images(folder: Path) -> list[Path]:
    """List the images directly in a folder, sorted; empty if there is no such folder.

    Raises:
        DatasetError: a name is not in UTF-8.
    """
    return sorted(_images(folder))


def list_good_images(folder: Path) -> list[Path]:
    """List the images directly in a folder of good parts, sorted.

    Raises:
        DatasetError: a name says that an image is a mask, which must not be learned as a part; or as
            `list_images`.
    """
    found = list_images(folder)
    for mask, image in masks_beside(found).items():
        raise DatasetError(
            f"{mask} is named as the mask of {image.name}, and good parts have none: move it away, or give "
            "it another name if it is a part"
        )
    return found


def masks_beside(images: Sequence[Path]) -> dict[Path, Path]:
    """Find masks beside their images, by the endings `_mask`, `_gt` and `_label`; images by mask.

    A `_label` file may be another view of the part. It counts as a mask only if its file type differs
    (KolektorSDD has BMP masks beside JPEG images).
    """
    by_stem = {normalised_name(path.stem): path for path in images}
    masks = {}
    for path in images:
        named = _OF_MASK.fullmatch(normalised_name(path.stem))
        of = named and by_stem.get(named[1])
        if named and of and (named[2].lower() in ("mask", "gt") or of.suffix.lower() != path.suffix.lower()):
            masks[path] = of
    return masks


def holds_images(folder: Path) -> bool:
    """Tell if an image lies directly in the folder."""
    return any(True for _ in _images(folder))


def list_folders(folder: Path) -> list[Path]:
    """List the visible folders in a folder, sorted, with any names; empty if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(f for f in folder.iterdir() if not f.name.startswith(".") and f.is_dir())


def list_subfolders(folder: Path) -> list[Path]:
    """List the visible folders in a folder, and require UTF-8 names.

    Raises:
        DatasetError: as `list_images`.
    """
    found = list_folders(folder)
    for subfolder in found:
        require_utf8(subfolder)
    return found


def is_utf8(name: str) -> bool:
    """Tell if a name is valid UTF-8, so that a report can hold it."""
    return escape_name(name) == name


def require_utf8(path: Path) -> None:
    """Require a path that a report can hold; names from old shares may not be UTF-8.

    Raises:
        DatasetError: it is not in UTF-8.
    """
    if not is_utf8(str(path)):
        raise DatasetError(f"the name of {escape_name(str(path))} is not in UTF-8: give it another one")


def normalised_name(name: str) -> str:
    """Compose accents as Linux and Windows do; files copied by a Mac have them decomposed."""
    return unicodedata.normalize("NFC", name)


def is_good(folder: Path) -> bool:
    """Tell if a folder's name says that its parts are good."""
    return folder.name.lower() in GOOD


def defect_folders(folder: Path) -> list[Path]:
    """List the sub-folders of defective parts: all except those of good parts and of masks."""
    return [f for f in list_subfolders(folder) if not is_good(f) and f.name.lower() not in MASKS]


def find_mask_folder(place: Path) -> Path:
    """Find the folder of masks in a folder, or the path it would have."""
    found = [f for name in MASKS for f in list_folders(place) if f.name.lower() == name]
    return found[0] if found else place / MASKS[0]


def defective_samples(kinds: Sequence[Path], mask_folder: Path) -> list[Sample]:
    """List the images of each kind of defect with their masks.

    Masks lie in `mask_folder`/<kind> or beside the images. With a single kind they may also lie in
    `mask_folder` itself.

    Raises:
        DatasetError: a folder of masks fits none of its images.
    """
    samples = []
    kinds = [kind for kind in kinds if holds_images(kind)]
    for kind in kinds:
        found = list_images(kind)
        beside = masks_beside(found)
        of_parts = sorted({*found} - {*beside})
        folder = _of_kind(mask_folder, kind, kinds)
        flat = not folder.is_dir() and len(kinds) == 1
        apart = match_masks(list_images(mask_folder), of_parts) if flat else _masks(folder, of_parts)
        masks = {part: mask for mask, part in beside.items()} | apart
        samples += [Sample(path, kind.name, masks.get(path)) for path in of_parts]
    return samples


def mask_files(mask_folder: Path, kinds: Sequence[Path]) -> list[Path]:
    """List every mask: in the folder of masks, and beside the images of a kind of defect.

    A mask is an image, or a folder of images.
    """
    apart = [mask for kind in list_subfolders(mask_folder) for mask in _mask_entries(kind)]
    beside = [mask for kind in kinds for mask in masks_beside(list_images(kind))]
    return [*list_images(mask_folder), *apart, *beside]


def _images(folder: Path) -> Iterator[Path]:
    for file in folder.iterdir() if folder.is_dir() else ():
        if is_image_file(file):
            require_utf8(file)
            yield file


def _mask_entries(folder: Path) -> list[Path]:
    return [*list_images(folder), *(f for f in list_subfolders(folder) if holds_images(f))]


def _of_kind(mask_folder: Path, kind: Path, kinds: Sequence[Path]) -> Path:
    """Find the folder of a kind's masks, by its name, or ignoring case if that is unambiguous."""
    folder, name = mask_folder / kind.name, normalised_name(kind.name).lower()
    alike = [f for f in list_folders(mask_folder) if normalised_name(f.name).lower() == name]
    twins = [k for k in kinds if normalised_name(k.name).lower() == name]
    return alike[0] if not folder.is_dir() and len(alike) == len(twins) == 1 else folder


def _masks(folder: Path, images: Sequence[Path]) -> dict[Path, Path]:
    """Match the masks of one kind of defect to its images."""
    entries = _mask_entries(folder)
    masks = match_masks(entries, images)
    if entries and images and not masks:
        raise DatasetError(
            f"no mask in {folder} is named after an image of its kind: the first is "
            f"{entries[0].name}, but {images[0].stem}_mask.png was expected for {images[0].name}"
        )
    return masks


def match_masks(entries: Sequence[Path], images: Sequence[Path]) -> dict[Path, Path]:
    """Match masks to images by name, with or without `_mask` or the like."""
    # A folder's name has no suffix to remove: 1.5 is not 1.
    by_stem = {normalised_name(entry.name if entry.is_dir() else entry.stem): entry for entry in entries}
    # An image may be named like the mask of another image.
    stems = {normalised_name(image.stem) for image in images}
    named = {
        of[1]: entry
        for stem, entry in by_stem.items()
        if stem not in stems and (of := _OF_MASK.fullmatch(stem))
    }
    masks = {}
    for image in images:
        stem = normalised_name(image.stem)
        mask = named.get(stem) or by_stem.get(stem)
        if mask is not None:
            masks[image] = mask
    return masks
