"""One test image with its label and mask, in every layout."""

from dataclasses import dataclass
from pathlib import Path


class DatasetError(ValueError):
    """The data set is missing, empty or in an unexpected layout."""


class NoTestImagesError(DatasetError):
    """There are no test images where the layout looks for them."""


@dataclass(frozen=True)
class Sample:
    """One image of the test set.

    Attributes:
        defect: the kind of defect, or None for a good part.
        mask: an image of the same size that marks the defect, or a folder of such images whose union marks
            it (:mod:`training.data.masks`); None without a mask, and always for a good part.
        copies: byte-for-byte copies of the image, which count once.
    """

    path: Path
    defect: str | None
    mask: Path | None
    copies: tuple["Sample", ...] = ()

    @property
    def masks(self) -> dict[str | None, list[Path]]:
        """The masks of the image and its copies, by kind of defect."""
        masks: dict[str | None, list[Path]] = {}
        for sample in (self, *self.copies):
            masks.setdefault(sample.defect, []).extend([] if sample.mask is None else [sample.mask])
        return masks
