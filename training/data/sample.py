"""What every dataset is made of, whatever its layout on disk."""

from dataclasses import dataclass
from pathlib import Path


class DatasetError(ValueError):
    """A dataset that is missing, empty or laid out in another way than expected."""


class NoTestPicturesError(DatasetError):
    """There are none where they are looked for."""


@dataclass(frozen=True)
class Sample:
    """One picture of the test set.

    Attributes:
        path: the picture's file.
        defect: the kind of defect, or None for a good part.
        mask: a picture of the same size that marks the defect (:mod:`training.data.masks` reads it), a
            folder of such pictures whose union marks it, or None where nobody drew one (always for a good
            part).
        copies: of the picture, byte for byte, where it counts once for all of them.
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
