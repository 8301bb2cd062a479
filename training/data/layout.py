"""Which layout a data folder has, found by looking at it; and the images, whatever the layout."""

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
    """One way to lay out images. Each is a module: :mod:`.mvtec`, :mod:`.visa`, :mod:`.plain`.

    Attributes:
        NAME: what the layout is called.
        TREE: what it looks like, in a line.
    """

    NAME: str
    TREE: str

    def recognises(self, folder: Path) -> bool:
        """Whether a category's folder has this layout. Nothing that is only for the test is opened."""

    def train_images(self, root: Path, category: str) -> list[Path]:
        """The good images to learn from, sorted; never empty.

        Raises:
            DatasetError: there are none, or the folder is not as the layout demands.
        """

    def test_samples(self, root: Path, category: str) -> list[Sample]:
        """The images to test on, good ones first; never empty.

        Raises:
            DatasetError: there are none, or the folder is not as the layout demands.
        """

    def masks(self, root: Path, category: str) -> list[Path]:
        """Every mask there is, whether or not an image goes with it."""

    def mask_folder(self, root: Path, category: str) -> Path | None:
        """Where masks are looked for, in a folder for each kind of defect; None where a list names them."""

    def test_folders(self, root: Path, category: str) -> list[Path] | None:
        """Where test images and masks are looked for, at some depth; None where a list names them."""


# The first that recognises a folder reads it: the most particular first.
LAYOUTS: tuple[DatasetLayout, ...] = (visa, mvtec, plain)

_SHOWN = 8


def find_layout(root: Path, category: str) -> DatasetLayout:
    """Look at `root`/`category` and say which layout it has.

    Raises:
        DatasetError: there is no such folder, or it has none of the layouts; what was looked for and what
            was found is named; or its name is not in UTF-8.
    """
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
    """The good images that a category is learned from, sorted; test images are not looked at.

    Args:
        root: the data folder.
        category: the category's folder in it.

    Raises:
        DatasetError: they are missing, or the layout is not known.
    """
    return find_layout(root, category).train_images(root, category)


def test_samples(root: Path, category: str) -> list[Sample]:
    """The images that a category is tested on, good ones first.

    Args:
        root: the data folder.
        category: the category's folder in it.

    Raises:
        DatasetError: they are missing, or the layout is not known.
    """
    return find_layout(root, category).test_samples(root, category)


def masks(root: Path, category: str) -> list[Path]:
    """Every mask of a category, whether or not an image goes with it.

    Raises:
        DatasetError: the layout is not known.
    """
    return find_layout(root, category).masks(root, category)


def mask_folder(root: Path, category: str) -> Path | None:
    """Where masks are looked for, in a folder for each kind of defect; None where a list names them.

    Raises:
        DatasetError: the layout is not known.
    """
    return find_layout(root, category).mask_folder(root, category)


def test_folders(root: Path, category: str) -> list[Path] | None:
    """Where test images and masks are looked for, at some depth; None where a list names them.

    Raises:
        DatasetError: the layout is not known.
    """
    return find_layout(root, category).test_folders(root, category)


def unused_masks(root: Path, category: str, samples: Sequence[Sample]) -> str | None:
    """What to say where a folder of masks holds images, at any depth, and none is taken for a mask.

    Args:
        root: the data folder.
        category: the category's folder in it.
        samples: its test images.
    """
    defective = [sample.path for sample in samples if sample.defect is not None]
    if not defective or any(sample.mask for sample in samples):
        return None
    folder = mask_folder(root, category)
    if folder is None or not (count := len(find_image_files(folder, lambda _: None))):
        return None
    wanted = folder / defective[0].parent.name / f"{defective[0].stem}_mask.png"
    return f"of {count} images in {folder} none is taken for a mask: {wanted} would be that of {defective[0]}"


def categories(root: Path) -> list[str]:
    """Names of the folders of `root` that have one of the layouts, sorted.

    A folder whose name is not in UTF-8 is passed over, for nobody can ask for it. One that holds such names
    is among them: who asks for it is told.
    """
    return [f.name for f in list_folders(root) if is_utf8(f.name) and _has_a_layout(f)]


def folders_without_layout(root: Path) -> list[str]:
    """Names of the folders of `root` that hold images, at any depth, in none of the layouts; sorted."""
    found = [f for f in list_folders(root) if is_utf8(f.name) and not _has_a_layout(f)]
    return [f.name for f in found if find_image_files(f, lambda _: None)]


def licence(root: Path, category: str) -> str | None:
    """What the category's file licence.txt says, see :mod:`.licence`; None where it has none."""
    folder = root / category
    return of_folder(folder) if folder.is_dir() else None


def require_categories(root: Path) -> list[str]:
    """As `categories`, of which there must be some.

    Raises:
        DatasetError: there are none, and why.
    """
    # Or a category's train/ and test/ would be taken for categories of good parts.
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
        # Who asks for it is told, and no other one fails by it. Linux puts one of these on every disk.
        return folder.name != "lost+found"


def _holds_a_category_itself(root: Path) -> bool:
    if mvtec.recognises(root) or visa.recognises(root) or any(is_good(f) for f in list_folders(root)):
        return True
    # Images alone may as well be someone's notes beside the categories.
    return holds_images(root) and not categories(root)


def _looked_for(folder: Path) -> str:
    found = [f"{f.name}/" for f in list_subfolders(folder)]
    if images := list_images(folder):
        found.append(f"{len(images)} images")
    listed = join_first(found, _SHOWN) or "no folders and no images"
    trees = [f"  {layout.TREE}" for layout in LAYOUTS]
    return "\n".join(["Looked for:", *trees, f"Found: {listed}."])
