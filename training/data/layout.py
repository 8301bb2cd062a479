"""The layout of a data folder, recognised by its content, and the images in it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from flows.fastflow.files.listing import join_first
from flows.fastflow.imaging.image_files import find_image_files
from training.data import mvtec, plain, visa
from training.data.folders import (
    holds_images,
    is_good,
    is_utf8,
    list_folders,
    list_images,
    list_subfolders,
    require_utf8,
)
from training.data.licence import licence as of_folder
from training.data.sample import DatasetError, Sample


class DatasetLayout(Protocol):
    """A layout of images. Each is a module: :mod:`.mvtec`, :mod:`.visa`, :mod:`.plain`.

    Attributes:
        TREE: its paths, in a line.
    """

    NAME: str
    TREE: str

    def recognises(self, folder: Path) -> bool:
        """Tell if a category's folder has this layout, without opening test files."""

    def train_images(self, root: Path, category: str) -> list[Path]:
        """List the good images to learn from, sorted; never empty.

        Raises:
            DatasetError: there are none, or the folder breaks the layout.
        """

    def test_samples(self, root: Path, category: str) -> list[Sample]:
        """List the test images, good ones first; never empty.

        Raises:
            DatasetError: there are none, or the folder breaks the layout.
        """

    def masks(self, root: Path, category: str) -> list[Path]:
        """List every mask, with or without an image."""

    def mask_folder(self, root: Path, category: str) -> Path | None:
        """Return the folder of masks, one sub-folder per kind of defect; None if a list names the masks."""

    def test_folders(self, root: Path, category: str) -> list[Path] | None:
        """Return the folders of test images and masks; None if a list names them."""


# The first that recognises a folder reads it: the most specific first.
LAYOUTS: tuple[DatasetLayout, ...] = (visa, mvtec, plain)

_MAX_NAMES = 8


def find_layout(root: Path, category: str) -> DatasetLayout:
    """Find the layout of `root`/`category`."""
    folder = root / category
    require_utf8(folder)
    if folder.is_dir():
        for layout in LAYOUTS:
            if layout.recognises(folder):
                return layout
        raise DatasetError(f"{folder} has none of the known layouts.\n{_looked_for(folder)}")
    _require_data_folder(root)
    if there := categories(root):
        raise DatasetError(f"there is no category {category!r} in {root}; found: {', '.join(there)}")
    raise DatasetError(f"there is no category {category!r} in {root}, nor any other.\n{_looked_for(root)}")


def train_images(root: Path, category: str) -> list[Path]:
    """List the good images that a category is learned from, sorted, without opening test images."""
    return find_layout(root, category).train_images(root, category)


def test_samples(root: Path, category: str) -> list[Sample]:
    """List the test images of a category, good ones first."""
    return find_layout(root, category).test_samples(root, category)


def unused_masks(root: Path, category: str, samples: Sequence[Sample]) -> str | None:
    """Describe a folder of masks whose images, at any depth, match no test image; None if there is none."""
    defective = [sample.path for sample in samples if sample.defect is not None]
    if not defective or any(sample.mask for sample in samples):
        return None
    folder = find_layout(root, category).mask_folder(root, category)
    if folder is None or not (count := len(find_image_files(folder, lambda _: None))):
        return None
    expected = folder / defective[0].parent.name / f"{defective[0].stem}_mask.png"
    return (
        f"of {count} images in {folder} none is taken for a mask: {expected} would be that of {defective[0]}"
    )


def categories(root: Path) -> list[str]:
    """List the names of the folders in `root` that have a known layout, sorted.

    A folder whose name is not in UTF-8 is skipped, since no command can name it. A folder with such names
    inside is listed: an error tells when it is used.
    """
    return [f.name for f in list_folders(root) if is_utf8(f.name) and _has_a_layout(f)]


def folders_without_layout(root: Path) -> list[str]:
    """List the names of the folders in `root` with images, at any depth, but no known layout; sorted."""
    found = [f for f in list_folders(root) if is_utf8(f.name) and not _has_a_layout(f)]
    return [f.name for f in found if find_image_files(f, lambda _: None)]


def licence(root: Path, category: str) -> str | None:
    """Read the category's licence.txt, see :mod:`.licence`; None if there is none."""
    folder = root / category
    return of_folder(folder) if folder.is_dir() else None


def require_categories(root: Path) -> list[str]:
    """List the categories of a data folder; at least one."""
    # Otherwise a category's train/ and test/ would pass for categories.
    _require_data_folder(root)
    if names := categories(root):
        return names
    raise DatasetError(f"there are no categories in {root}.\n{_looked_for(root)}")


def _require_data_folder(root: Path) -> None:
    if not root.is_dir():
        raise DatasetError(f"there is no data folder {root}")
    if _holds_a_category_itself(root):
        raise DatasetError(
            f"{root} holds one category itself: give the folder above it as the data folder, and "
            f"{root.resolve().name!r} as the category"
        )


def _has_a_layout(folder: Path) -> bool:
    try:
        return any(layout.recognises(folder) for layout in LAYOUTS)
    except DatasetError:
        return True
    except OSError:
        # An error tells when the folder is used. Linux has a lost+found on every disk.
        return folder.name != "lost+found"


def _holds_a_category_itself(root: Path) -> bool:
    if mvtec.recognises(root) or visa.recognises(root) or any(is_good(f) for f in list_folders(root)):
        return True
    # Images beside categories may be someone's notes.
    return holds_images(root) and not categories(root)


def _looked_for(folder: Path) -> str:
    found = [f"{f.name}/" for f in list_subfolders(folder)]
    if images := list_images(folder):
        found.append(f"{len(images)} images")
    listed = join_first(found, _MAX_NAMES) or "no folders and no images"
    trees = [f"  {layout.TREE}" for layout in LAYOUTS]
    return "\n".join(["Looked for:", *trees, f"Found: {listed}."])
