"""What every dataset is made of, whatever its layout on disk."""

from dataclasses import dataclass
from pathlib import Path


class DatasetError(ValueError):
    """A dataset that is missing, empty or laid out in another way than expected."""


class NoTestImagesError(DatasetError):
    """There are none where they are looked for."""


@dataclass(frozen=True)
class Sample:
    """One image of the test set.

    Attributes:
        path: the image's file.
        defect: the kind of defect, or None for a good part.
        mask: an image of the same size that marks the defect (:mod:`training.data.masks` reads it), a
            folder of such images whose union marks it, or None where nobody drew one (always for a good
            part).
        copies: of the image, byte for byte, where it counts once for all of them.
    """

    path: Path
    defect: str | None
    mask: Path | None
    copies: tuple["Sample", ...] = ()

    @property
    def masks(self) -> dict[str | None, list[Path]]:
        """The masks of it and its copies, by kind of defect."""
        found: dict[str | None, list[Path]] = {}
        for one in (self, *self.copies):
            found.setdefault(one.defect, []).extend([] if one.mask is None else [one.mask])
        return found
