"""Pictures in a category's folder that have no part in anything: in folders too deep, or of other kinds."""

from collections import Counter
from collections.abc import Collection
from pathlib import Path

from flows.fastflow.images import is_picture
from flows.fastflow.plain_files import printable
from training.datasets.check.findings import Finding

# Of pictures of kinds that are not read, or that go by another name.
_OTHERS = frozenset(
    f".{kind}" for kind in ["avif", "dng", "gif", "heic", "heif", "jfif", "jp2", "jpe", "pgm", "ppm", "raw"]
)


def passed_over(folder: Path, within: Collection[Path], used: Collection[Path]) -> list[Finding]:
    """Find the pictures that are neither learned from, nor tested on, nor masks; a finding for each folder.

    Args:
        folder: the category's, which names are relative to.
        within: folders to look in, at any depth.
        used: the files, and the folders of masks, that the layout knows.
    """
    known = set(used)
    left: Counter[tuple[Path, str]] = Counter()
    for file in {file for root in within for file in root.rglob("*")}:
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if hidden or not known.isdisjoint((file, file.parent)):
            continue
        if is_picture(file):
            left[file.parent, "where none are looked for"] += 1
        elif file.suffix.lower() in _OTHERS and file.is_file():
            left[file.parent, f"with the suffix {file.suffix.lower()}, which is not read"] += 1
        elif file.is_symlink() and not file.exists():
            left[file.parent, "that are links to nothing"] += 1
    names = [(printable(place.relative_to(folder)), count, why) for (place, why), count in left.items()]
    return [
        Finding(kind="passed_over", severity="warning", files=[name], message=f"{name}: {count} {why}")
        for name, count, why in sorted(names)
    ]
