"""Plain folders, as a camera or a person fills them.

    <root>/<category>/*.png                    all good; nothing to test on

    <root>/<category>/good/*.png               good parts; ok and normal are the same
    <root>/<category>/<defect>/*.png           defective parts, one folder per kind: scratch, bad, ng ...
    <root>/<category>/ground_truth/<defect>/*  optional: masks, as in MVTec AD; masks/ is the same

If there are defective parts, a fifth of the good ones is kept for the test and never learned from. The
sha256 of each file's name decides: the choice is the same on every machine, and added images hardly move the
others. With a parts.txt (`flows.fastflow.calibration.images_per_part`), a fifth of the parts is kept,
with all their images.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from flows.fastflow.calibration.images_per_part import parts_from_names
from flows.fastflow.files.listing import join_first
from flows.fastflow.imaging.image_files import DEFECT_FOLDERS
from flows.fastflow.imaging.image_formats import IMAGE_SUFFIXES
from training.data.folders import (
    GOOD,
    defect_folders,
    defective_samples,
    find_mask_folder,
    holds_images,
    is_good,
    list_good_images,
    list_images,
    list_subfolders,
    mask_files,
    normalised_name,
)
from training.data.sample import DatasetError, NoTestImagesError, Sample

NAME = "plain folders"
TREE = (
    f"<category>/*.png (all good), or <category>/{'|'.join(GOOD)}/*.png with, if there are any, "
    "defective parts in <category>/<defect>/*.png (plain folders)"
)

TEST_SHARE = 0.2  # of the good parts, where there are defective ones


def recognises(folder: Path) -> bool:
    """Tell if a category's folder holds images, or folders with names of good or defective parts."""
    named = {f.name.lower() for f in list_subfolders(folder)}
    return bool(named & {*GOOD, *DEFECT_FOLDERS}) or holds_images(folder)


def train_images(root: Path, category: str) -> list[Path]:
    good, kept = _good(root / category)
    return sorted(set(good) - set(kept))


def test_samples(root: Path, category: str) -> list[Sample]:
    """List the test images: the good parts kept for the test, then defect by defect."""
    folder = root / category
    _, kept = _good(folder)
    defective = defective_samples(_kinds(folder), find_mask_folder(folder))
    if not defective:
        move = f"move them into {folder / 'good'}, " if list_images(folder) else ""
        if deeper := [f for kind in defect_folders(folder) for f in list_subfolders(kind) if holds_images(f)]:
            move += f"move up what lies in {join_first([str(f) for f in deeper], 3)}, where none is "
            move += "looked for, or "
        raise NoTestImagesError(
            f"{folder} holds good parts alone, and all of them are learned from: to test, {move}put "
            f"defective parts into {folder / 'defect'} and train anew, which keeps a fifth of the good ones"
        )
    return [*(Sample(path, None, None) for path in kept), *defective]


def masks(root: Path, category: str) -> list[Path]:
    folder = root / category
    return mask_files(find_mask_folder(folder), _kinds(folder))


def mask_folder(root: Path, category: str) -> Path:
    return find_mask_folder(root / category)


def test_folders(root: Path, category: str) -> list[Path]:
    """Return the category's folder: any folder in it may hold a kind of defect."""
    return [root / category]


def _good(folder: Path) -> tuple[list[Path], list[Path]]:
    """List all good images of a category, and those of them kept for the test."""
    loose = list_images(folder)
    named = [f for f in list_subfolders(folder) if is_good(f)]
    kinds = _kinds(folder)
    if loose and (named or kinds):
        others = ", ".join(f"{f.name}/" for f in [*named, *kinds])
        raise DatasetError(
            f"{folder} holds {len(loose)} images beside folders of images ({others}), so it is not "
            f"clear whether {loose[0].name} is good: move the images into {folder / 'good'} or away"
        )
    good = [path for f in ([folder] if loose else named) for path in list_good_images(f)]
    if not good and (
        deeper := [(f, n) for s in named for f in list_subfolders(s) if (n := len(list_images(f)))]
    ):
        where = join_first([f"{n} in {f}" for f, n in deeper], 3)
        raise DatasetError(
            f"no good parts in {folder}: images are looked for in {named[0]} itself, not in folders within "
            f"it, and there are {where}. Move them up"
        )
    if not good:
        raise DatasetError(
            f"no good parts in {folder}: expected images in a folder {', '.join(GOOD[:-1])} or "
            f"{GOOD[-1]}, with one of the suffixes {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    if not kinds:
        return good, []
    names = [path.name for path in good]
    named_parts = parts_from_names(names, folder)
    # Without a parts.txt each image is a part, whatever its name.
    shown: Sequence[str | int] = range(len(good)) if named_parts is None else named_parts
    digests = [hashlib.sha256(name.encode()).digest() for name in named_parts or map(normalised_name, names)]
    parts = list(dict.fromkeys(shown[i] for i in sorted(range(len(good)), key=digests.__getitem__)))
    if len(parts) < 2:
        raise DatasetError(f"{folder} holds one good part, which cannot be both learned from and tested on")
    kept = set(parts[: max(1, round(TEST_SHARE * len(parts)))])
    return good, sorted(path for path, part in zip(good, shown, strict=True) if part in kept)


def _kinds(folder: Path) -> list[Path]:
    kinds = defect_folders(folder)
    found = [kind for kind in kinds if holds_images(kind)]
    for kind in kinds:
        # If these images went unnoticed, all good ones would be learned and none kept for the test.
        deeper = (
            [f for f in list_subfolders(kind) if holds_images(f)]
            if kind.name.lower() in DEFECT_FOLDERS
            else []
        )
        if deeper and kind not in found:
            raise DatasetError(
                f"no defective parts in {kind} itself, but in folders within it, where none are looked for "
                f"({join_first([f.name for f in deeper], 3)}): each kind of defect has a folder beside that "
                f"of the good parts. Move them up, into {folder}"
            )
    return found
