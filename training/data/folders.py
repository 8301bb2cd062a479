"""Folders of images: what counts as an image, and which names mean good and defective.

Order is by name, so that the same folder always gives the same list.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from flows.fastflow.files.plain_files import escape_name
from flows.fastflow.imaging.image_files import is_image_file
from training.data.sample import DatasetError, Sample

GOOD = ("good", "ok", "normal")
DEFECTIVE = ("defect", "defects", "defective", "bad", "ng", "nok", "ko", "anomaly", "anomalous", "abnormal")
MASKS = ("ground_truth", "masks", "mask")

_OF_MASK = re.compile("(.+)_(mask|gt|labels?)", re.IGNORECASE | re.DOTALL)


def list_images(folder: Path) -> list[Path]:
    """The images directly in a folder, sorted; none where there is no such folder.

    Raises:
        DatasetError: a name is not in UTF-8.
    """
    return sorted(_images(folder))


def list_good_images(folder: Path) -> list[Path]:
    """The images directly in a folder of good parts, sorted.

    Raises:
        DatasetError: one is named as another's mask, which would be learned from as a part; or as `images`.
    """
    found = list_images(folder)
    for mask, image in masks_beside(found).items():
        raise DatasetError(
            f"{mask} is named as the mask of {image.name}, and good parts have none: move it away, or give "
            "it another name if it is a part"
        )
    return found


def masks_beside(images: Sequence[Path]) -> dict[Path, Path]:
    """The images of masks that lie beside them, named as they are with `_mask`, `_gt` or `_label`.

    What is called a label may be a view of the part, as the image is: a mask is of another type of file
    (KolektorSDD's are BMP beside JPEG).
    """
    by_stem = {normalised_name(path.stem): path for path in images}
    found = {}
    for path in images:
        named = _OF_MASK.fullmatch(normalised_name(path.stem))
        of = named and by_stem.get(named[1])
        if named and of and (named[2].lower() in ("mask", "gt") or of.suffix.lower() != path.suffix.lower()):
            found[path] = of
    return found


def holds_images(folder: Path) -> bool:
    """Whether an image lies directly in the folder."""
    return any(True for _ in _images(folder))


def list_folders(folder: Path) -> list[Path]:
    """The folders in a folder but hidden ones, sorted, whatever their names; none without such a folder."""
    if not folder.is_dir():
        return []
    return sorted(f for f in folder.iterdir() if not f.name.startswith(".") and f.is_dir())


def list_subfolders(folder: Path) -> list[Path]:
    """As `folders`, where each of them counts.

    Raises:
        DatasetError: as `images`.
    """
    found = list_folders(folder)
    for one in found:
        require_utf8(one)
    return found


def is_utf8(name: str) -> bool:
    """Whether a name is in UTF-8, and can be in a report."""
    return escape_name(name) == name


def require_utf8(path: Path) -> None:
    """Refuse a path that no report could hold, such as one of an old share.

    Raises:
        DatasetError: it is not in UTF-8.
    """
    if not is_utf8(str(path)):
        raise DatasetError(f"the name of {escape_name(str(path))} is not in UTF-8: give it another one")


def normalised_name(name: str) -> str:
    """A name with accents as Linux and Windows write them: copied by a Mac, it may have them apart."""
    return unicodedata.normalize("NFC", name)


def is_good(folder: Path) -> bool:
    """Whether a folder's name says that its parts are good."""
    return folder.name.lower() in GOOD


def defect_folders(folder: Path) -> list[Path]:
    """The sub-folders that hold defective parts: all but those of good ones and of masks."""
    return [f for f in list_subfolders(folder) if not is_good(f) and f.name.lower() not in MASKS]


def find_mask_folder(place: Path) -> Path:
    """The folder of masks in a folder, or what it would be called."""
    found = [f for name in MASKS for f in list_folders(place) if f.name.lower() == name]
    return found[0] if found else place / MASKS[0]


def defective_samples(kinds: Sequence[Path], mask_folder: Path) -> list[Sample]:
    """The images of each kind of defect with their masks, which lie in `mask_folder`/<kind> or beside them.

    Of one kind alone they may lie in `mask_folder` itself.

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
    """Every mask: in and below a folder of masks images, or folders of images that make one mask; and
    those that lie beside the images of a kind of defect.
    """
    apart = [mask for kind in list_subfolders(mask_folder) for mask in _mask_entries(kind)]
    return (
        list_images(mask_folder)
        + apart
        + [mask for kind in kinds for mask in masks_beside(list_images(kind))]
    )


def _images(folder: Path) -> Iterator[Path]:
    for file in folder.iterdir() if folder.is_dir() else ():
        if is_image_file(file):
            require_utf8(file)
            yield file


def _mask_entries(folder: Path) -> list[Path]:
    return [*list_images(folder), *(f for f in list_subfolders(folder) if holds_images(f))]


def _of_kind(mask_folder: Path, kind: Path, kinds: Sequence[Path]) -> Path:
    """The folder of a kind's masks, which is called as the kind, or so but for case where only one is."""
    folder, name = mask_folder / kind.name, normalised_name(kind.name).lower()
    alike = [f for f in list_folders(mask_folder) if normalised_name(f.name).lower() == name]
    twins = [k for k in kinds if normalised_name(k.name).lower() == name]
    return alike[0] if not folder.is_dir() and len(alike) == len(twins) == 1 else folder


def _masks(folder: Path, images: Sequence[Path]) -> dict[Path, Path]:
    """The masks of one kind of defect by its images.

    Raises:
        DatasetError: there are masks and images, and none is of another.
    """
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
    # A folder's name has no suffix to take off: 1.5 is not 1.
    by_stem = {normalised_name(entry.name if entry.is_dir() else entry.stem): entry for entry in entries}
    # A view of a label may be called as a mask of another image is.
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
