"""Images in a category's folder that have no part in anything: in folders too deep, or of other kinds."""

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

# Of images of kinds that are not read, or that go by another name.
_OTHERS = frozenset(
    f".{kind}" for kind in ["avif", "dng", "gif", "heic", "heif", "jfif", "jp2", "jpe", "pgm", "ppm", "raw"]
)
_ELSEWHERE = "where none are looked for"


@dataclass(frozen=True)
class UnusedImages:
    """Images of a folder that have no part in anything.

    Attributes:
        place: the folder.
        count: how many.
        why: in words that follow their number.
    """

    place: Path
    count: int
    why: str

    def said(self, name: str) -> str:
        """The same in words, with what the folder is to be called."""
        return f"{name}: {self.count} {self.why}"


def passed_over(
    folder: Path, train: Collection[Path], others: Collection[Path] | None = None
) -> list[DataFinding]:
    """Find the images that are neither learned from, nor tested on, nor masks; a finding for each folder.

    Args:
        folder: the category's, which names are relative to.
        train: the training images.
        others: the test images, and masks or folders of them. Without them only folders below those of the
            training images are looked into: what lies beside these may be for the test.
    """
    within = {folder} if others is not None else {path.parent for path in train}
    found = _idle(folder, train, others, within)
    named = [(escape_name(one.place.relative_to(folder).as_posix()), one) for one in found]
    return [
        DataFinding(kind="passed_over", severity="warning", files=[name], message=one.said(name))
        for name, one in sorted(named, key=lambda pair: (pair[0], pair[1].count, pair[1].why))
    ]


def unused_test_images(
    data: Path, category: str, samples: Sequence[Sample], *, without_masks: bool = False
) -> list[UnusedImages]:
    """Find those that lie where test images and masks are looked for, by their names, sorted by folder.

    A training run tells of what lies below its own images, and nothing is looked for where a list names the
    test images.

    Args:
        data: the data folder.
        category: the category's folder in it.
        samples: its test images.
        without_masks: leave out what lies in the folder of masks, as where none is taken for a mask: see
            `layout.unused_masks`.
    """
    places = layout.test_folders(data, category)
    if places is None:
        return []
    try:
        masks = layout.masks(data, category)
    except DatasetError:  # as of a name that is not in UTF-8; nothing can be called idle without them
        return []
    try:
        train = layout.train_images(data, category)
    except DatasetError:  # a test set may come alone
        train = []
    told = {path.parent for path in train}
    if without_masks and (folder := layout.mask_folder(data, category)) is not None:
        told.add(folder)
    known = [*(sample.path for sample in samples), *masks]
    chosen = [one for one in _idle(data / category, train, known, places) if not _lies_in(one.place, told)]
    return sorted(chosen, key=lambda one: (one.place, one.why))


def _idle(
    folder: Path,
    train: Collection[Path],
    others: Collection[Path] | None,
    within: Collection[Path],
) -> list[UnusedImages]:
    """Those that lie in some folders, at any depth."""
    known = {*train, *(others or ())}
    left: Counter[tuple[Path, str]] = Counter()
    for file in {file for root in within for file in root.rglob("*")}:
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if hidden or not known.isdisjoint((file, file.parent)):
            continue
        why = _why(file)
        if why is not None and (why != _ELSEWHERE or others is not None or file.parent not in within):
            left[file.parent, why] += 1
    return [UnusedImages(place, count, why) for (place, why), count in left.items()]


def _why(file: Path) -> str | None:
    """Why a file that nothing is made of may have been meant as an image; None of others."""
    kind = file.suffix.lower()
    try:
        if is_image_file(file):
            return _ELSEWHERE
        if kind in _OTHERS and file.is_file():
            return f"with the suffix {kind}, which is not read"
        return "that are links to nothing" if file.is_symlink() and not file.exists() else None
    except OSError:  # of a folder that may be listed but not entered
        return "that may not be looked at" if kind in {*IMAGE_SUFFIXES, *_OTHERS} else None


def _lies_in(place: Path, folders: Collection[Path]) -> bool:
    return not {place, *place.parents}.isdisjoint(folders)
