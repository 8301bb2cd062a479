"""Models folder: categories, their versions, and the active version of each.

models/<category>/<version>/    a bundle, see bundle.py
models/<category>/active        the active version and, in a second line, the version before it
models/<category>/calibrations/<version>/    later calibrations, see app/registry/calibrations.py
models/backbones/               weights of frozen backbones, shared by all categories
"""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from flows.fastflow.bundle.bundle import MANIFEST, BundleError, read_manifest
from flows.fastflow.files.atomic_files import remove_directory, replace_file
from flows.fastflow.files.plain_files import FileError, read_file

BACKBONES = "backbones"
ACTIVE = "active"
CALIBRATIONS = "calibrations"
# Marks a folder as a copy of models that servers share, see app/registry/shared_models.py.
COPY = ".copy"
_LOCK_SECONDS = 30
_CATEGORY = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


# Replaces a file of a category; None deletes a file or a directory.
Write = Callable[[Path, bytes | None], None]
# Locks a category and yields the function that changes it.
Changing = Callable[[str], AbstractContextManager[Write]]


class Pointer(NamedTuple):
    """Content of a file `active`: the active version and the version before it."""

    active: str | None = None
    previous: str | None = None


class UnknownModelError(BundleError):
    """The models folder does not have this category or version."""


class NotFetchedError(BundleError):
    """A server's copy of shared models does not have all files of a version now."""


class ModelConflictError(BundleError):
    """The request does not fit the state of the models folder."""


def is_category(name: str) -> bool:
    return name != BACKBONES and _CATEGORY.fullmatch(name) is not None


def is_version(name: str) -> bool:
    # Files beside the versions end in .json, such as the settings of a category.
    return (
        name not in (ACTIVE, CALIBRATIONS)
        and not name.endswith(".json")
        and _VERSION.fullmatch(name) is not None
    )


def require_category(category: str) -> str:
    """Return the category, or raise BundleError if the name is not allowed."""
    if not is_category(category):
        raise BundleError(
            f"{category!r} is not a valid category: use up to 64 of a-z, 0-9, _ and -, starting with a "
            f"letter or a digit, and not {BACKBONES!r}"
        )
    return category


def categories(models: Path) -> list[str]:
    """List the categories with at least one version, sorted."""
    if not models.is_dir():
        return []
    names = (d.name for d in models.iterdir() if d.is_dir())
    return sorted(n for n in names if is_category(n) and versions(models, n))


def describe_category_folder(models: Path) -> str | None:
    """Describe what to pass instead of a models folder that is one category's; None if it is not."""
    if not any(models.glob(f"*/{MANIFEST}")):
        return None
    folder = models.absolute()
    return (
        f"{models} is the folder of the category {folder.name!r}; pass the folder above it, {folder.parent}"
    )


def versions(models: Path, category: str) -> list[str]:
    """List the versions of a category, oldest first."""
    folder = models / category
    if not is_category(category) or not folder.is_dir():
        return []
    return sorted(d.name for d in folder.iterdir() if _exists(models, category, d.name))


def active_version(models: Path, category: str) -> str | None:
    """Return the active version; None if there is none or the file `active` is damaged."""
    return _pointer(models, category).active


def previous_version(models: Path, category: str) -> str | None:
    """Return the version before the active one; None if there is none or it was deleted."""
    previous = _pointer(models, category).previous
    return previous if previous and _exists(models, category, previous) else None


def read_pointer(path: Path) -> Pointer:
    """Read a file `active`.

    Raises:
        FileError: the file names no version.
        OSError: the file does not exist or cannot be read.
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
    name = version or active_version(models, category)
    if name is not None and _exists(models, category, name):
        return models / category / name
    known = versions(models, category)
    if not known and (fault := describe_category_folder(models)) is not None:
        raise UnknownModelError(fault)
    if not known:
        raise UnknownModelError(
            f"no model of category {category!r} in {models}; there are: "
            f"{', '.join(categories(models)) or 'none'}"
        )
    if name is None:
        raise UnknownModelError(f"category {category!r} has no active version; there are: {known}")
    raise UnknownModelError(f"category {category!r} has no version {name!r}; there are: {known}")


def activate(models: Path, category: str, version: str, changing: Changing | None = None) -> str | None:
    """Make a version the active one in one atomic step, and record the version before it.

    Args:
        changing: locks the category; None for `lock_category`.

    Returns:
        The version that was active until now, possibly the same; None if there was none.

    Raises:
        UnknownModelError: there is no such category or version.
    """
    resolve(models, category, version)
    with (changing or partial(lock_category, models))(category) as write:
        resolve(models, category, version)
        before = active_version(models, category)
        if before != version:
            lines = [version, *([before] if before else [])]
            write(models / category / ACTIVE, "\n".join(lines).encode())
    return before


def delete(models: Path, category: str, version: str, changing: Changing | None = None) -> None:
    """Delete a version that is not active, and its calibrations.

    Args:
        changing: see `activate`.

    Raises:
        UnknownModelError: there is no such category or version.
        ModelConflictError: the version is active.
    """
    resolve(models, category, version)
    with (changing or partial(lock_category, models))(category) as write:
        folder = resolve(models, category, version)
        if version == active_version(models, category):
            raise ModelConflictError(f"{category}/{version} is active; activate another version first")
        write(folder, None)
        write(calibrations_folder(folder), None)


def calibrations_folder(version: Path) -> Path:
    """Return the folder of a version's later calibrations."""
    return version.parent / CALIBRATIONS / version.name


def describe_lost_calibrations(models: Path, category: str, before: str | None, version: str) -> list[str]:
    """Describe the calibrations of the previous version that the active version lacks.

    Args:
        before: the version that was active.
        version: the active version.
    """

    def renewals(name: str) -> set[str]:
        return {path.name for path in calibrations_folder(models / category / name).glob("*.json")}

    if before is None or not (lost := renewals(before) - renewals(version)):
        return []
    return [
        f"{version} lacks {len(lost)} of the calibrations of {before} for the line and its stations: make "
        f"them with flowgauge calibrate --category {category}"
    ]


@contextmanager
def lock_category(models: Path, category: str) -> Iterator[Write]:
    """Lock a category against changes by other processes, and yield the function that changes it.

    Raises:
        ModelConflictError: another process holds the lock for half a minute, or the folder is a copy.
    """
    require_own(models)
    try:
        with FileLock(models / category / ".lock", timeout=_LOCK_SECONDS):
            yield _write
    except Timeout as error:
        raise ModelConflictError(f"another process is changing {category!r}; try again later") from error


def require_own(models: Path) -> None:
    """Raise ModelConflictError if the folder is a copy of models that servers share."""
    if (models / COPY).exists():
        raise ModelConflictError(
            f"{models} is one server's copy of models that several servers share: change them on the page or "
            "through the API of a server, or make a version in another folder (--models) and upload it"
        )


def require_fetched(models: Path, version: Path) -> None:
    """Raise NotFetchedError if the folder is a copy of shared models that lacks files of a version."""
    if (models / COPY).exists() and not all(
        (version / name).is_file() for name in read_manifest(version).files
    ):
        raise NotFetchedError(
            f"{models} is a server's copy of shared models, without all files of {version.parent.name}/"
            f"{version.name} now: the server fetches them when it needs them; ask it with --url"
        )


def _write(path: Path, data: bytes | None) -> None:
    if data is not None:
        replace_file(path, data, sync=True)
    elif path.is_dir():
        remove_directory(path)
    else:
        path.unlink(missing_ok=True)


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
