"""VisA as it is published (Zou et al., ECCV 2022, arXiv 2207.14315).

    <root>/split_csv/1cls.csv                          object,split,label,image,mask: one row an image
    <root>/<category>/Data/Images/Normal/0000.JPG      good parts
    <root>/<category>/Data/Images/Anomaly/000.JPG      defective parts
    <root>/<category>/Data/Masks/Anomaly/000.png       where the defects are: the number of each one's kind

The authors' split for learning from good parts alone, 1cls.csv, says what is for training and what for
the test; the rows name their files from the root. VisA as its authors' prepare_data.py arranges it is a
relative of MVTec AD.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from flows.fastflow.files.listing import join_first
from training.data.folders import list_images
from training.data.sample import DatasetError, Sample

NAME = "VisA"
TREE = "<category>/Data/Images/Normal/*.JPG with split_csv/1cls.csv beside the categories (VisA)"

SPLIT = Path("split_csv") / "1cls.csv"
_HEADER = ["object", "split", "label", "image", "mask"]
_MAX_FILES = 3


def recognises(folder: Path) -> bool:
    return (folder / "Data" / "Images").is_dir()


def train_images(root: Path, category: str) -> list[Path]:
    rows = [row for row in _rows(root, category) if row.split == "train"]
    defective = next((row for row in rows if row.label != "normal"), None)
    if defective is not None:
        raise DatasetError(
            f"{root / SPLIT} line {defective.line} puts an image with the label {defective.label!r} into "
            "the training set; only good parts are learned from"
        )
    found = _present(root, rows, "train")
    return sorted(root / row.image for row in found)


def test_samples(root: Path, category: str) -> list[Sample]:
    rows = _present(root, [row for row in _rows(root, category) if row.split == "test"], "test")
    good = [Sample(root / row.image, None, None) for row in rows if row.label == "normal"]
    bad = [
        Sample(root / row.image, "anomaly", root / row.mask if row.mask else None)
        for row in rows
        if row.label == "anomaly"
    ]
    return sorted(good, key=lambda s: s.path) + sorted(bad, key=lambda s: s.path)


def mask_folder(root: Path, category: str) -> None:
    """The split names each mask, wherever it lies."""


def test_folders(root: Path, category: str) -> None:
    """The split names each test image, wherever it lies."""


def masks(root: Path, category: str) -> list[Path]:
    return list_images(root / category / "Data" / "Masks" / "Anomaly")


@dataclass(frozen=True)
class _Row:
    line: int
    split: str
    label: str
    image: str
    mask: str


def _rows(root: Path, category: str) -> Iterator[_Row]:
    """Read and validate the rows of one category."""
    file = root / SPLIT
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DatasetError(
            f"{root / category} is laid out as in VisA, but {file} is missing: it lies in VisA's archive "
            "beside the categories, and says which images are for training"
        ) from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{file} is not a text in UTF-8: is it damaged?") from error
    reader = csv.reader(text.splitlines())
    lines: dict[str, int] = {}
    header = next(reader, [])
    if header != _HEADER:
        raise DatasetError(f"{file} must begin with {','.join(_HEADER)}; it begins with {','.join(header)!r}")
    for row in reader:
        if not row:
            continue
        if len(row) != len(_HEADER):
            raise DatasetError(
                f"{file} line {reader.line_num}: expected {len(_HEADER)} columns; got {len(row)}: "
                f"{','.join(row)!r}"
            )
        name, split, label, image, mask = row
        if name != category:
            continue
        if split not in {"train", "test"} or label not in {"normal", "anomaly"}:
            raise DatasetError(
                f"{file} line {reader.line_num}: the split must be train or test and the label normal or "
                f"anomaly; got {split!r} and {label!r}"
            )
        for path in filter(None, (image, mask)):
            # A split from elsewhere must not point at other files.
            parts = PurePosixPath(path).parts
            if ".." in parts or parts[:1] != (category,):
                raise DatasetError(
                    f"{file} line {reader.line_num}: {path!r} is not in the category's folder, {category}/"
                )
        if not image:
            raise DatasetError(f"{file} line {reader.line_num}: no image is named")
        if (before := lines.setdefault(image, reader.line_num)) != reader.line_num:
            raise DatasetError(
                f"{file} line {reader.line_num}: {image!r} is there twice, first in line {before}"
            )
        yield _Row(reader.line_num, split, label, image, mask)


def _present(root: Path, rows: list[_Row], split: str) -> list[_Row]:
    if not rows:
        raise DatasetError(f"{root / SPLIT} has no rows of the category for {split}")
    missing = [
        (row.line, path)
        for row in rows
        for path in (row.image, row.mask)
        if path and not (root / path).is_file()
    ]
    if missing:
        shown = join_first([f"{path} (line {line})" for line, path in missing], _MAX_FILES)
        raise DatasetError(f"{root / SPLIT} names {len(missing)} files that are not in {root}: {shown}")
    return rows
