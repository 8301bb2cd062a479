"""Findings of the data check, as text and as JSON."""

import re
from collections import Counter
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, computed_field

from flows.fastflow.files import listing
from training.data.sample import DatasetError

Severity = Literal["error", "warning"]
Kind = Literal[
    "undecodable",
    "passed_over",
    "depth",
    "blank",
    "exposure",
    "size",
    "colour",
    "outlier",
    "leak",
    "duplicate",
    "near_duplicate",
    "mask_unusable",
    "mask_empty",
    "mask_full",
    "mask_shades",
    "mask_of_good",
    "mask_without_picture",
    "defect_without_mask",
]

# In the order of the report: errors first.
TITLES: dict[Kind, str] = {
    "undecodable": "cannot be decoded",
    "passed_over": "images that have no part in anything",
    "depth": "samples of 16 bits that use fewer, or more than sample_bits",
    "blank": "nothing to be seen",
    "exposure": "much darker or brighter than the rest",
    "size": "of another size than the rest",
    "colour": "grey among coloured ones, or coloured among grey ones",
    "outlier": "unlike the other good ones: are they good?",
    "leak": "test images that are, or nearly are, among the training images",
    "duplicate": "the same file more than once",
    "near_duplicate": "almost the same image more than once",
    "mask_unusable": "masks that cannot be used",
    "mask_empty": "masks that mark nothing",
    "mask_full": "masks that mark nearly all of the image",
    "mask_shades": "masks of several shades, of which the darker do not count",
    "mask_of_good": "good parts in which a mask marks something: are they defective?",
    "mask_without_picture": "masks without an image",
    "defect_without_mask": "defective parts without a mask, where others have one",
}


def relative_message(text: str, folder: Path) -> str:
    """Make the paths in a message relative to a folder: records travel to other machines."""
    # Only at the start of a path: other paths may end with the folder's path.
    return re.sub(rf"(?<![^\s'\"(,]){re.escape(str(folder))}/", "", text)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class DataFinding(_Frozen):
    """One problem of the data.

    Attributes:
        kind: kind of problem; `TITLES` has its title.
        severity: an error stops a training run, a warning does not.
        files: the files concerned, relative to the category's folder.
        measure: strength in the kind's own unit: for a near-duplicate the distance over the usual one (0 is
            equal), for an outlier robust standard deviations, for exposure grey levels above the rest.
    """

    kind: Kind
    severity: Severity = "warning"
    files: list[str]
    message: str
    measure: float | None = None


class SizeCount(_Frozen):
    """The number of training images of one size; sides in pixels."""

    width: int
    height: int
    count: int


class DataCheck(_Frozen):
    """The data check of a category.

    Attributes:
        parts: number of parts in the training images, by parts.txt; None without one.
        different: number of parts, or else of images, that a run splits; without byte-for-byte copies and
            undecodable files.
        test: number of test images; None if they were not checked, or there are none.
        no_test: the reason if there are none.
        sizes: sizes of the training images, the most frequent first, ten at most.
        findings: in the order of `TITLES`.
    """

    category: str
    layout: str
    train: int
    parts: int | None = None
    different: int
    test: int | None
    no_test: str | None
    masks: int
    sizes: list[SizeCount]
    seconds: float
    findings: list[DataFinding]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def counts(self) -> dict[str, int]:
        """Number of findings of each kind; kinds without findings are absent."""
        return dict(Counter(finding.kind for finding in self.findings))

    @property
    def errors(self) -> list[DataFinding]:
        """Findings that stop a training run."""
        return [f for f in self.findings if f.severity == "error"]

    def lines(self, shown: int = 3) -> list[str]:
        """Format a summary, then each kind with its first `shown` findings."""
        parts = "" if self.parts is None else f" of {self.parts} parts"
        test = "" if self.test is None else f", {self.test} test images, {self.masks} masks"
        warnings = len(self.findings) - len(self.errors)
        lines = [
            f"data check: {self.train} training images{parts}{test}; {len(self.errors)} errors, "
            f"{warnings} warnings ({self.seconds:.1f} s)"
        ]
        for kind, title in TITLES.items():
            of_kind = [f for f in self.findings if f.kind == kind]
            if not of_kind:
                continue
            severity = "error" if any(f.severity == "error" for f in of_kind) else "warning"
            lines.append(f"{severity}: {title} ({len(of_kind)})")
            lines += listing.indent_first([finding.message for finding in of_kind], shown)
        return lines

    def raise_for_errors(self) -> None:
        """Raise the errors of the check.

        Raises:
            DatasetError: with every training image that cannot be decoded.
        """
        if self.errors:
            listed = "\n".join(f"  {finding.message}" for finding in self.errors)
            raise DatasetError(
                f"{len(self.errors)} training images of {self.category} cannot be decoded; repair or "
                f"remove them:\n{listed}"
            )
