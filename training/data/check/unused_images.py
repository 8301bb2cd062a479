"""Images in a category's folder that nothing uses: in folders too deep, or of unsupported formats."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.fastflow.files.plain_files import escape_name
from flows.fastflow.imaging.image_files import is_image_file
from flows.fastflow.imaging.image_formats import IMAGE_SUFFIXES
from training.data import layout
from training.data.check.findings import DataFinding
from training.data.sample import DatasetError, Sample

# Suffixes of formats that are not read, or of unusual names of formats that are.
_UNREAD_SUFFIXES = frozenset(
    f".{kind}" for kind in ["avif", "dng", "gif", "heic", "heif", "jfif", "jp2", "jpe", "pgm", "ppm", "raw"]
)
_MISPLACED = "where none are looked for"


@dataclass(frozen=True)
class UnusedImages:
    """Unused images of a folder.

    Attributes:
        reason: words that follow the count.
    """

    folder: Path
    count: int
    reason: str

    def describe(self, folder: str) -> str:
        """Describe the images, with the folder under another name."""
        return f"{folder}: {self.count} {self.reason}"


def find_unused_images(
    folder: Path, train: Collection[Path], others: Collection[Path] | None = None
) -> list[DataFinding]:
    """Find images outside training set, test set and masks; one finding per folder.

    Args:
        folder: the category's folder; names are relative to it.
        others: the test images, and masks or folders of masks. Without them the search covers only folders
            below those of the training images: files beside these may belong to the test.
    """
    roots = {folder} if others is not None else {path.parent for path in train}
    unused = _search(folder, train, others, roots)
    named = [(escape_name(images.folder.relative_to(folder).as_posix()), images) for images in unused]
    return [
        DataFinding(kind="passed_over", files=[name], message=images.describe(name))
        for name, images in sorted(named, key=lambda pair: (pair[0], pair[1].count, pair[1].reason))
    ]


def unused_test_images(
    data: Path, category: str, samples: Sequence[Sample], *, without_masks: bool = False
) -> list[UnusedImages]:
    """Find unused images in the folders of test images and masks, sorted by folder.

    A training run reports images below the folders of its own. A layout that lists its test images has no
    folders to search.

    Args:
        without_masks: skip the folder of masks, if `layout.unused_masks` reports it.
    """
    found = layout.find_layout(data, category)
    roots = found.test_folders(data, category)
    if roots is None:
        return []
    try:
        masks = found.masks(data, category)
    except DatasetError:  # e.g. a name that is not in UTF-8; unused images cannot be told without masks
        return []
    try:
        train = layout.train_images(data, category)
    except DatasetError:  # a test set may come alone
        train = []
    reported = {path.parent for path in train}
    if without_masks and (folder := found.mask_folder(data, category)) is not None:
        reported.add(folder)
    used = [*(sample.path for sample in samples), *masks]
    unused = _search(data / category, train, used, roots)
    return sorted(
        (images for images in unused if not _lies_in(images.folder, reported)),
        key=lambda images: (images.folder, images.reason),
    )


def _search(
    folder: Path, train: Collection[Path], others: Collection[Path] | None, roots: Collection[Path]
) -> list[UnusedImages]:
    """Count unused images below the roots, at any depth."""
    used = {*train, *(others or ())}
    counts: Counter[tuple[Path, str]] = Counter()
    for file in {file for root in roots for file in root.rglob("*")}:
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if hidden or not used.isdisjoint((file, file.parent)):
            continue
        reason = _reason(file)
        if reason is None:
            continue
        if reason != _MISPLACED or others is not None or file.parent not in roots:
            counts[file.parent, reason] += 1
    return [UnusedImages(parent, count, reason) for (parent, reason), count in counts.items()]


def _reason(file: Path) -> str | None:
    """Tell why an image file is unused; None if the file is no image."""
    suffix = file.suffix.lower()
    try:
        if is_image_file(file):
            return _MISPLACED
        if suffix in _UNREAD_SUFFIXES and file.is_file():
            return f"with the suffix {suffix}, which is not read"
        return "that are links to nothing" if file.is_symlink() and not file.exists() else None
    except OSError:  # in a folder that may be listed but not entered
        return "that may not be looked at" if suffix in {*IMAGE_SUFFIXES, *_UNREAD_SUFFIXES} else None


def _lies_in(folder: Path, folders: Collection[Path]) -> bool:
    return not {folder, *folder.parents}.isdisjoint(folders)
