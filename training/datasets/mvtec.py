"""The layout of MVTec AD (Bergmann et al., CVPR 2019), which most inspection data sets follow.

    <root>/<category>/train/good/000.png              good parts, all that training ever reads
    <root>/<category>/test/good/000.png               good parts kept for `evaluate`
    <root>/<category>/test/<defect>/000.png           defective parts, one folder per kind of defect
    <root>/<category>/ground_truth/<defect>/000_mask.png    optional: where the defect is
    <root>/<category>/licence.txt                     optional: one line, "name, SPDX identifier"

Pictures may be of any format that `flows.fastflow.images` reads, with suffixes in any case. A mask
carries its picture's name with or without `_mask`, and any of these suffixes. Order is by name, so
that the same folder always gives the same list.
"""

from pathlib import Path

from flows.fastflow.images import IMAGE_SUFFIXES
from training.datasets.sample import DatasetError, Sample


def train_images(root: Path, category: str) -> list[Path]:
    """List the good pictures a category is learned from. Nothing under test/ is looked at.

    Raises:
        DatasetError: there is no such category, or it has no pictures in train/good.
    """
    folder = _category_folder(root, category) / "train" / "good"
    images = _images(folder)
    if not images:
        raise DatasetError(f"no pictures in {folder}: {_EXPECTED}")
    return images


def test_samples(root: Path, category: str) -> list[Sample]:
    """List the test pictures with what is known of them, good parts first, then defect by defect.

    Raises:
        DatasetError: there is no such category, it has no test pictures, or a folder of masks fits
            none of its pictures.
    """
    folder = _category_folder(root, category)
    kinds = sorted(_subfolders(folder / "test"), key=lambda kind: (kind.name != "good", kind.name))
    samples = []
    for kind in kinds:
        if kind.name == "good":
            samples += [Sample(path, None, None) for path in _images(kind)]
        else:
            masks = _masks(folder / "ground_truth" / kind.name, _images(kind))
            samples += [Sample(path, kind.name, masks.get(path)) for path in _images(kind)]
    if not samples:
        raise DatasetError(f"no pictures in the folders of {folder / 'test'}: {_EXPECTED}")
    return samples


def categories(root: Path) -> list[str]:
    """Names of the folders of `root` that have a train/good folder, sorted."""
    return [f.name for f in _subfolders(root) if (f / "train" / "good").is_dir()]


def licence(root: Path, category: str) -> str | None:
    """The first line of the category's licence.txt, or None where there is none."""
    file = _category_folder(root, category) / "licence.txt"
    # A sign of another encoding is no reason to lose what was trained.
    lines = file.read_text(encoding="utf-8", errors="replace").split("\n") if file.is_file() else []
    return (lines[0].strip() or None) if lines else None


_EXPECTED = (
    "expected the layout of MVTec AD, <category>/train/good/*.png and "
    "<category>/test/<defect>/*.png, "
    f"with one of the suffixes {', '.join(sorted(IMAGE_SUFFIXES))}"
)


def _category_folder(root: Path, category: str) -> Path:
    folder = root / category
    if folder.is_dir():
        return folder
    if not root.is_dir():
        raise DatasetError(f"there is no data folder {root}")
    if (root / "train" / "good").is_dir():
        raise DatasetError(
            f"{root} holds one category itself: give the folder above it as the data folder, and "
            f"{root.resolve().name!r} as the category"
        )
    found = ", ".join(categories(root)) or f"none; {_EXPECTED}"
    raise DatasetError(f"there is no category {category!r} in {root}; found: {found}")


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    # Names that begin with a dot are an operating system's notes ("._000.png"), not pictures.
    return sorted(
        f
        for f in folder.iterdir()
        if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith(".") and f.is_file()
    )


def _masks(folder: Path, images: list[Path]) -> dict[Path, Path]:
    """Match the masks of one kind of defect to its pictures by name."""
    files = _images(folder)
    by_stem = {file.stem: file for file in files}
    masks = {}
    for image in images:
        mask = by_stem.get(f"{image.stem}_mask") or by_stem.get(image.stem)
        if mask is not None:
            masks[image] = mask
    if files and images and not masks:
        raise DatasetError(
            f"no mask in {folder} is named after a picture of its kind: the first is "
            f"{files[0].name}, but {images[0].stem}_mask.png was expected for {images[0].name}"
        )
    return masks
