"""The models folder: categories, their versions, and the active one of each.

models/<category>/<version>/    a bundle, see bundle.py
models/<category>/active        the version that serves and, in a second line, the one that served before it
models/<category>/calibrations/<version>/    made later, of good pictures; see app/registry/calibrations.py
models/backbones/               weights of frozen backbones, shared by all categories
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout
from torch import Tensor

from flows.fastflow.bundle.bundle import MANIFEST, BundleError, write
from flows.fastflow.files.atomic_files import (
    remove_abandoned,
    remove_directory,
    replace_file,
    temporary_directory,
)
from flows.fastflow.files.plain_files import FileError, read_file
from flows.fastflow.manifest import Manifest

BACKBONES = "backbones"
ACTIVE = "active"
CALIBRATIONS = "calibrations"
_LOCK_SECONDS = 30
_CATEGORY = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Pointer(NamedTuple):
    """The content of a file `active`: the version that serves, and the one that served before it."""

    active: str | None = None
    previous: str | None = None


class UnknownModelError(BundleError):
    """There is no such category or version in the models folder."""


class ModelConflictError(BundleError):
    """The request does not fit the state of the models folder."""


def is_category(name: str) -> bool:
    """Tell whether a category can have this name."""
    return name != BACKBONES and _CATEGORY.fullmatch(name) is not None


def is_version(name: str) -> bool:
    """Tell whether a version can have this name."""
    # Files that lie beside the versions end so, such as the settings of a category.
    return (
        name not in (ACTIVE, CALIBRATIONS)
        and not name.endswith(".json")
        and _VERSION.fullmatch(name) is not None
    )


def require_category(category: str) -> str:
    """Return the category, or raise BundleError if it cannot be one."""
    if not is_category(category):
        raise BundleError(
            f"{category!r} cannot be a category: up to 64 of a-z, 0-9, _ and -, starting with a letter or a "
            f"digit, and not {BACKBONES!r}"
        )
    return category


def categories(models: Path) -> list[str]:
    """Categories with at least one version, sorted."""
    if not models.is_dir():
        return []
    names = (d.name for d in models.iterdir() if d.is_dir())
    return sorted(n for n in names if is_category(n) and versions(models, n))


def versions(models: Path, category: str) -> list[str]:
    """Versions of a category, oldest first."""
    folder = models / category
    if not is_category(category) or not folder.is_dir():
        return []
    return sorted(d.name for d in folder.iterdir() if _exists(models, category, d.name))


def active_version(models: Path, category: str) -> str | None:
    """Return the version that serves, None if none was activated or the file `active` is damaged."""
    return _pointer(models, category).active


def previous_version(models: Path, category: str) -> str | None:
    """Return the version that served before the active one, None if there is none or it was deleted."""
    previous = _pointer(models, category).previous
    return previous if previous and _exists(models, category, previous) else None


def read_pointer(path: Path) -> Pointer:
    """Read a file `active`.

    Raises:
        FileError: it names no version.
        OSError: it does not exist or cannot be read.
    """
    found = parse_pointer(read_file(path, 1000).decode(errors="replace"))
    if found.active is None:
        raise FileError(f"{path} names no version")
    return found


def parse_pointer(text: str) -> Pointer:
    """Parse the content of a file `active`; what it does not name is None."""
    lines = [line.strip() for line in text.strip().splitlines()]
    if not 1 <= len(lines) <= 2 or not all(map(is_version, lines)):
        return Pointer()
    return Pointer(*lines)


def resolve(models: Path, category: str, version: str | None = None) -> Path:
    """Return the directory of a version, by default of the active one.

    Raises:
        UnknownModelError: there is no such category or version.
    """
    wanted = version or active_version(models, category)
    if wanted is not None and _exists(models, category, wanted):
        return models / category / wanted
    known = versions(models, category)
    if not known:
        raise UnknownModelError(
            f"no model of category {category!r} in {models}; there are: "
            f"{', '.join(categories(models)) or 'none'}"
        )
    if wanted is None:
        raise UnknownModelError(f"category {category!r} has no active version; there are: {known}")
    raise UnknownModelError(f"category {category!r} has no version {wanted!r}; there are: {known}")


def activate(models: Path, category: str, version: str) -> str | None:
    """Make a version the one that serves, in one atomic step; the one before is remembered.

    Returns:
        The version that served until now, which may be the same; None where none did.

    Raises:
        UnknownModelError: there is no such category or version.
    """
    resolve(models, category, version)
    with lock_category(models, category):
        resolve(models, category, version)
        before = active_version(models, category)
        if before != version:
            lines = [version, *([before] if before else [])]
            replace_file(models / category / ACTIVE, "\n".join(lines).encode(), sync=True)
    return before


def delete(models: Path, category: str, version: str) -> None:
    """Remove a version that is not active, and the calibrations that were made for it.

    Raises:
        UnknownModelError: there is no such category or version.
        ConflictError: it is the active one.
    """
    resolve(models, category, version)
    with lock_category(models, category):
        folder = resolve(models, category, version)
        if version == active_version(models, category):
            raise ModelConflictError(f"{category}/{version} is active; activate another version first")
        remove_directory(folder)
        renewed = calibrations_folder(folder)
        if renewed.is_dir():
            remove_directory(renewed)


def calibrations_folder(version: Path) -> Path:
    """Return the folder of the calibrations that were made after a version."""
    return version.parent / CALIBRATIONS / version.name


def describe_lost_calibrations(models: Path, category: str, before: str | None, version: str) -> list[str]:
    """Say which calibrations do not hold any more when a version takes another's place.

    Args:
        models: the models folder.
        category: of both.
        before: the version that was active.
        version: the one that is now.
    """

    def renewals(name: str) -> set[str]:
        return {path.name for path in calibrations_folder(models / category / name).glob("*.json")}

    if before is None or not (lost := renewals(before) - renewals(version)):
        return []
    return [
        f"{len(lost)} of the calibrations of the line and its stations that were made after {before} hold "
        f"for it alone, and {version} has none in their place: flowgauge calibrate --category {category} "
        "makes them"
    ]


def publish(
    models: Path, manifest: Manifest, tensors: Mapping[str, Tensor], files: Mapping[str, bytes]
) -> Path:
    """Write a bundle under a temporary name and rename it into place.

    Args:
        models: the models folder.
        manifest: its `files` is filled in here.
        tensors: the flows' weights and the normalisation's statistics.
        files: further files by relative name, such as golden pictures and the report.

    Returns:
        The bundle's directory.

    Raises:
        BundleError: a name cannot be used.
        ConflictError: the version exists.
    """
    _require_free(models, manifest)
    remove_abandoned(models / manifest.category)
    with temporary_directory(models / manifest.category) as temporary:
        write(temporary, manifest, tensors, files)
        return move_into_place(temporary, models, manifest)


def move_into_place(staged: Path, models: Path, manifest: Manifest) -> Path:
    """Rename a complete bundle, on the same disk, to where its manifest says that it belongs.

    Returns:
        The bundle's directory.

    Raises:
        BundleError: a name cannot be used.
        ConflictError: the version exists.
    """
    target = _require_free(models, manifest)
    target.parent.mkdir(parents=True, exist_ok=True)
    staged.chmod(0o755)
    try:
        staged.rename(target)
    except OSError:
        _require_free(models, manifest)  # somebody else was faster
        raise
    return target


@contextmanager
def lock_category(models: Path, category: str) -> Iterator[None]:
    """Hold a category against other processes that change it too.

    Raises:
        ConflictError: another one has held it for half a minute.
    """
    try:
        with FileLock(models / category / ".lock", timeout=_LOCK_SECONDS):
            yield
    except Timeout as error:
        raise ModelConflictError(
            f"another process has been changing {category!r} for long; try again"
        ) from error


def _pointer(models: Path, category: str) -> Pointer:
    if not is_category(category):
        return Pointer()
    try:
        return read_pointer(models / category / ACTIVE)
    except (FileError, FileNotFoundError, NotADirectoryError):
        return Pointer()


def _exists(models: Path, category: str, version: str) -> bool:
    return (
        is_category(category) and is_version(version) and (models / category / version / MANIFEST).is_file()
    )


def _require_free(models: Path, manifest: Manifest) -> Path:
    require_category(manifest.category)
    if not is_version(manifest.version):
        raise BundleError(
            f"{manifest.version!r} cannot be a version: up to 64 letters, digits, '.', '_' and '-', starting "
            f"with a letter or a digit, not ending in .json and not {ACTIVE!r} or {CALIBRATIONS!r}"
        )
    target = models / manifest.category / manifest.version
    if target.exists() or target.is_symlink():
        raise ModelConflictError(f"{target} exists already; versions are never overwritten")
    return target
