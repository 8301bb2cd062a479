"""Pictures in a category's folder that have no part in anything: in folders too deep, or of other kinds."""

from collections import Counter
from collections.abc import Collection
from pathlib import Path

from flows.fastflow.picture_files import is_picture
from training.datasets.check.findings import Finding

# Of pictures of kinds that are not read, or that go by another name.
_OTHERS = frozenset(
    f".{kind}" for kind in ["avif", "dng", "gif", "heic", "heif", "jfif", "jp2", "jpe", "pgm", "ppm", "raw"]
)


def passed_over(
    folder: Path, train: Collection[Path], others: Collection[Path] | None = None
) -> list[Finding]:
    """Find the pictures that are neither learned from, nor tested on, nor masks; a finding for each folder.

    Args:
        folder: the category's, which names are relative to.
        train: the training pictures.
        others: the test pictures, and masks or folders of them. Without them only folders below those of the
            training pictures are looked into: what lies beside these may be for the test.
    """
    known = {*train, *(others or ())}
    within = {folder} if others is not None else {path.parent for path in train}
    left: Counter[tuple[Path, str]] = Counter()
    for file in {file for root in within for file in root.rglob("*")}:
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if hidden or not known.isdisjoint((file, file.parent)):
            continue
        if is_picture(file):
            if others is not None or file.parent not in within:
                left[file.parent, "where none are looked for"] += 1
        elif file.suffix.lower() in _OTHERS and file.is_file():
            left[file.parent, f"with the suffix {file.suffix.lower()}, which is not read"] += 1
        elif file.is_symlink() and not file.exists():
            left[file.parent, "that are links to nothing"] += 1
    names = [(place.relative_to(folder).as_posix(), count, why) for (place, why), count in left.items()]
    return [
        Finding(kind="passed_over", severity="warning", files=[name], message=f"{name}: {count} {why}")
        for name, count, why in sorted(names)
    ]
