"""The layout of MVTec AD (Bergmann et al., CVPR 2019), which most inspection data sets follow.

    <root>/<category>/train/good/000.png              good parts, all that training ever reads
    <root>/<category>/test/good/000.png               good parts kept for `evaluate`
    <root>/<category>/test/<defect>/000.png           defective parts, one folder per kind of defect
    <root>/<category>/ground_truth/<defect>/000_mask.png    optional: where the defect is; or masks/
    <root>/<category>/licence.txt                     optional: see `training.data.licence`

Its relatives differ in a name or two and are read as they are:

- MVTec LOCO AD (Bergmann et al., IJCV 2022): the mask of an image is a folder,
  ground_truth/<defect>/000/000.png, 001.png ..., one image for each part of the defect.
- MVTec AD 2 (Heckler-Kram et al., arXiv 2503.21622): test_public/ instead of test/, with the
  ground_truth in it.
- BTAD (Mishra et al., ISIE 2021): train/ok, test/ok, test/ko.
- VisA as its authors' prepare_data.py arranges it: test/bad, ground_truth/bad.

validation/ of MVTec LOCO AD and AD 2 is not read. Images may be of any format that
`flows.fastflow.imaging.decoder` reads, with suffixes in any case. A mask carries its image's name with or
without `_mask`, `_gt` or `_label`, and any of these suffixes.
"""

from collections import Counter
from pathlib import Path

from flows.fastflow.files.listing import join_first
from flows.fastflow.files.plain_files import escape_name
from flows.fastflow.imaging.image_files import find_image_files
from flows.fastflow.imaging.image_formats import IMAGE_SUFFIXES
from training.data.folders import (
    MASKS,
    defect_folders,
    defective_samples,
    find_mask_folder,
    is_good,
    list_good_images,
    list_subfolders,
    mask_files,
)
from training.data.sample import DatasetError, NoTestImagesError, Sample

NAME = "MVTec AD"
TREE = "<category>/train/good/*.png and <category>/test/<defect>/*.png (MVTec AD and its relatives)"


def recognises(folder: Path) -> bool:
    return any((folder / name).is_dir() for name in ("train", "test", "test_public"))


def train_images(root: Path, category: str) -> list[Path]:
    """List the good images of a category, without opening test/."""
    train = root / category / "train"
    found = [
        path for folder in list_subfolders(train) if is_good(folder) for path in list_good_images(folder)
    ]
    if not found:
        lie = Counter(path.parent for path in find_image_files(train, lambda _: None).values())
        where = join_first([f"{count} in {escape_name(str(place))}" for place, count in lie.items()], 3)
        there = f". There are {where}" if where else ""
        raise DatasetError(f"no images in {train / 'good'}: {_EXPECTED}{there}")
    return found


def test_samples(root: Path, category: str) -> list[Sample]:
    """List the test images with their labels and masks, good parts first, then defect by defect."""
    folder = root / category
    test = _test_folder(folder)
    good = [path for kind in list_subfolders(test) if is_good(kind) for path in list_good_images(kind)]
    defective = defective_samples(defect_folders(test), mask_folder(root, category))
    if not good and not defective:
        raise NoTestImagesError(f"no images in the folders of {test}: {_EXPECTED}")
    return [*(Sample(path, None, None) for path in good), *defective]


def masks(root: Path, category: str) -> list[Path]:
    kinds = defect_folders(_test_folder(root / category))
    return mask_files(mask_folder(root, category), kinds)


def mask_folder(root: Path, category: str) -> Path:
    folder = root / category
    # A folder in test/ with another name may be anything.
    usual = [folder / MASKS[0], _test_folder(folder) / MASKS[0]]
    return next((one for one in usual if one.is_dir()), find_mask_folder(folder))


def test_folders(root: Path, category: str) -> list[Path]:
    """Return the folders of test images and masks, without validation/ and other tests."""
    return [_test_folder(root / category), mask_folder(root, category)]


_EXPECTED = (
    "expected the layout of MVTec AD, <category>/train/good/*.png and "
    "<category>/test/<defect>/*.png, "
    f"with one of the suffixes {', '.join(sorted(IMAGE_SUFFIXES))}"
)


def _test_folder(folder: Path) -> Path:
    public = folder / "test_public"
    return public if public.is_dir() and not (folder / "test").is_dir() else folder / "test"
