"""Folders of pictures: what counts as a picture, and which names mean good and defective.

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


def images(folder: Path) -> list[Path]:
    """The pictures directly in a folder, sorted; none where there is no such folder.

    Raises:
        DatasetError: a name is not in UTF-8.
    """
    return sorted(_pictures(folder))


def parts_alone(folder: Path) -> list[Path]:
    """The pictures directly in a folder of good parts, sorted.

    Raises:
        DatasetError: one is named as another's mask, which would be learned from as a part; or as `images`.
    """
    found = images(folder)
    for mask, picture in masks_among(found).items():
        raise DatasetError(
            f"{mask} is named as the mask of {picture.name}, and good parts have none: move it away, or give "
            "it another name if it is a part"
        )
    return found


def masks_among(pictures: Sequence[Path]) -> dict[Path, Path]:
    """The pictures of masks that lie beside them, named as they are with `_mask`, `_gt` or `_label`.

    What is called a label may be a view of the part, as the picture is: a mask is of another type of file
    (KolektorSDD's are BMP beside JPEG).
    """
    by_stem = {composed(path.stem): path for path in pictures}
    found = {}
    for path in pictures:
        named = _OF_MASK.fullmatch(composed(path.stem))
        of = named and by_stem.get(named[1])
        if named and of and (named[2].lower() in ("mask", "gt") or of.suffix.lower() != path.suffix.lower()):
            found[path] = of
    return found


def holds_images(folder: Path) -> bool:
    """Whether a picture lies directly in the folder."""
    return any(True for _ in _pictures(folder))


def folders(folder: Path) -> list[Path]:
    """The folders in a folder but hidden ones, sorted, whatever their names; none without such a folder."""
    if not folder.is_dir():
        return []
    return sorted(f for f in folder.iterdir() if not f.name.startswith(".") and f.is_dir())


def subfolders(folder: Path) -> list[Path]:
    """As `folders`, where each of them counts.

    Raises:
        DatasetError: as `images`.
    """
    found = folders(folder)
    for one in found:
        expect_utf8(one)
    return found


def is_utf8(name: str) -> bool:
    """Whether a name is in UTF-8, and can be in a report."""
    return escape_name(name) == name


def expect_utf8(path: Path) -> None:
    """Refuse a path that no report could hold, such as one of an old share.

    Raises:
        DatasetError: it is not in UTF-8.
    """
    if not is_utf8(str(path)):
        raise DatasetError(f"the name of {escape_name(str(path))} is not in UTF-8: give it another one")


def composed(name: str) -> str:
    """A name with accents as Linux and Windows write them: copied by a Mac, it may have them apart."""
    return unicodedata.normalize("NFC", name)


def is_good(folder: Path) -> bool:
    """Whether a folder's name says that its parts are good."""
    return folder.name.lower() in GOOD


def kinds_of_defects(folder: Path) -> list[Path]:
    """The sub-folders that hold defective parts: all but those of good ones and of masks."""
    return [f for f in subfolders(folder) if not is_good(f) and f.name.lower() not in MASKS]


def folder_of_masks(place: Path) -> Path:
    """The folder of masks in a folder, or what it would be called."""
    found = [f for name in MASKS for f in folders(place) if f.name.lower() == name]
    return found[0] if found else place / MASKS[0]


def defective_samples(kinds: Sequence[Path], mask_folder: Path) -> list[Sample]:
    """The pictures of each kind of defect with their masks, which lie in `mask_folder`/<kind> or beside them.

    Of one kind alone they may lie in `mask_folder` itself.

    Raises:
        DatasetError: a folder of masks fits none of its pictures.
    """
    samples = []
    kinds = [kind for kind in kinds if holds_images(kind)]
    for kind in kinds:
        found = images(kind)
        beside = masks_among(found)
        of_parts = sorted({*found} - {*beside})
        folder = _of_kind(mask_folder, kind, kinds)
        flat = not folder.is_dir() and len(kinds) == 1
        apart = masks_of(images(mask_folder), of_parts) if flat else _masks(folder, of_parts)
        masks = {part: mask for mask, part in beside.items()} | apart
        samples += [Sample(path, kind.name, masks.get(path)) for path in of_parts]
    return samples


def mask_files(mask_folder: Path, kinds: Sequence[Path]) -> list[Path]:
    """Every mask: in and below a folder of masks pictures, or folders of pictures that make one mask; and
    those that lie beside the pictures of a kind of defect.
    """
    apart = [mask for kind in subfolders(mask_folder) for mask in _mask_entries(kind)]
    return images(mask_folder) + apart + [mask for kind in kinds for mask in masks_among(images(kind))]


def _pictures(folder: Path) -> Iterator[Path]:
    for file in folder.iterdir() if folder.is_dir() else ():
        if is_image_file(file):
            expect_utf8(file)
            yield file


def _mask_entries(folder: Path) -> list[Path]:
    return [*images(folder), *(f for f in subfolders(folder) if holds_images(f))]


def _of_kind(mask_folder: Path, kind: Path, kinds: Sequence[Path]) -> Path:
    """The folder of a kind's masks, which is called as the kind, or so but for case where only one is."""
    folder, name = mask_folder / kind.name, composed(kind.name).lower()
    alike = [f for f in folders(mask_folder) if composed(f.name).lower() == name]
    twins = [k for k in kinds if composed(k.name).lower() == name]
    return alike[0] if not folder.is_dir() and len(alike) == len(twins) == 1 else folder


def _masks(folder: Path, pictures: Sequence[Path]) -> dict[Path, Path]:
    """The masks of one kind of defect by its pictures.

    Raises:
        DatasetError: there are masks and pictures, and none is of another.
    """
    entries = _mask_entries(folder)
    masks = masks_of(entries, pictures)
    if entries and pictures and not masks:
        raise DatasetError(
            f"no mask in {folder} is named after a picture of its kind: the first is "
            f"{entries[0].name}, but {pictures[0].stem}_mask.png was expected for {pictures[0].name}"
        )
    return masks


def masks_of(entries: Sequence[Path], pictures: Sequence[Path]) -> dict[Path, Path]:
    """Match masks to pictures by name, with or without `_mask` or the like."""
    # A folder's name has no suffix to take off: 1.5 is not 1.
    by_stem = {composed(entry.name if entry.is_dir() else entry.stem): entry for entry in entries}
    # A view of a label may be called as a mask of another picture is.
    stems = {composed(picture.stem) for picture in pictures}
    named = {
        of[1]: entry
        for stem, entry in by_stem.items()
        if stem not in stems and (of := _OF_MASK.fullmatch(stem))
    }
    masks = {}
    for picture in pictures:
        stem = composed(picture.stem)
        mask = named.get(stem) or by_stem.get(stem)
        if mask is not None:
            masks[picture] = mask
    return masks
