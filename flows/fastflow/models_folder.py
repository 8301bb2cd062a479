"""The models folder: which categories and versions there are, and which of them serves.

models/<category>/<version>/    a bundle, see bundle.py
models/<category>/active        the version that serves and, in a second line, the one that served before it
models/<category>/calibrations/<version>/    made later, of good pictures; see app/calibrations.py
models/backbones/               weights of frozen backbones, shared by all categories
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from torch import Tensor

from flows.fastflow.bundle import MANIFEST, BundleError, verify, write
from flows.fastflow.manifest import Manifest
from flows.fastflow.plain_files import (
    FileError,
    read_file,
    remove_directory,
    replace_file,
    sweep,
    temporary_directory,
)

BACKBONES = "backbones"
ACTIVE = "active"
CALIBRATIONS = "calibrations"
_LOCK_SECONDS = 30
_CATEGORY = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class UnknownModelError(BundleError):
    """There is no such category or version in the models folder."""


class ConflictError(BundleError):
    """What was asked for does not fit what is in the models folder."""


def is_category(name: str) -> bool:
    """Whether a category can have this name."""
    return name != BACKBONES and _CATEGORY.fullmatch(name) is not None


def is_version(name: str) -> bool:
    """Whether a version can have this name."""
    # Files that lie beside the versions end so, such as the settings of a category.
    return (
        name not in (ACTIVE, CALIBRATIONS)
        and not name.endswith(".json")
        and _VERSION.fullmatch(name) is not None
    )


def check_category(category: str) -> str:
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
    return sorted(d.name for d in folder.iterdir() if _is_there(models, category, d.name))


def active_version(models: Path, category: str) -> str | None:
    """The version that serves, or None if none was activated or the file holds no version's name."""
    return _pointer(models, category)[0]


def previous_version(models: Path, category: str) -> str | None:
    """The version that served before the active one, or None if there is none or it was deleted."""
    previous = _pointer(models, category)[1]
    return previous if previous and _is_there(models, category, previous) else None


def resolve(models: Path, category: str, version: str | None = None) -> Path:
    """The directory of a version, by default of the active one.

    Raises:
        UnknownModelError: there is no such category or version.
    """
    wanted = version or active_version(models, category)
    if wanted is not None and _is_there(models, category, wanted):
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
    with locked(models, category):
        resolve(models, category, version)
        before = active_version(models, category)
        if before != version:
            lines = [version, *([before] if before else [])]
            replace_file(models / category / ACTIVE, "\n".join(lines).encode())
    return before


def delete(models: Path, category: str, version: str, expect: Callable[[str], None] = lambda _: None) -> None:
    """Remove a version that does not serve, as far as the folder tells.

    Args:
        models: the models folder.
        category: of the version.
        version: its name.
        expect: is called with the active version's name where the one before it is to go, which would serve
            in its place; it raises where the active one, whose files are good, could not serve.

    Raises:
        UnknownModelError: there is no such category or version.
        ConflictError: it is the active one, or the one before it and the active one is damaged.
    """
    resolve(models, category, version)
    with locked(models, category):
        folder = resolve(models, category, version)
        active, previous = _pointer(models, category)
        if version == active:
            raise ConflictError(f"{category}/{version} is active; activate another version first")
        if version == previous and active is not None:
            try:
                verify(models / category / active)
            except BundleError as error:
                # Without what was wrong, which names paths: a service passes this on.
                raise ConflictError(
                    f"{category}/{version} serves as long as {active}, the active one, is damaged; activate "
                    "another version first"
                ) from error
            expect(active)
        remove_directory(folder)
        renewed = renewals_of(folder)
        if renewed.is_dir():
            remove_directory(renewed)


def renewals_of(version: Path) -> Path:
    """The folder of the calibrations that were made after a version, which lies in its category's folder."""
    return version.parent / CALIBRATIONS / version.name


def left_behind(models: Path, category: str, before: str | None, version: str) -> list[str]:
    """What is lost where a version takes another's place, a line for people; none where nothing is.

    Args:
        models: the models folder.
        category: of both.
        before: the version that was active.
        version: the one that is now.
    """

    def renewals(name: str) -> set[str]:
        return {path.name for path in renewals_of(models / category / name).glob("*.json")}

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
    _expect_free(models, manifest)
    sweep(models / manifest.category)
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
    target = _expect_free(models, manifest)
    target.parent.mkdir(parents=True, exist_ok=True)
    staged.chmod(0o755)
    try:
        staged.rename(target)
    except OSError:
        _expect_free(models, manifest)  # somebody else was faster
        raise
    return target


def pointer(text: str) -> tuple[str | None, str | None]:
    """The active version and the one before, as a file `active` says; None for what it does not."""
    lines = [line.strip() for line in text.strip().splitlines()]
    if not 1 <= len(lines) <= 2 or not all(map(is_version, lines)):
        return None, None
    return lines[0], lines[1] if len(lines) == 2 else None


@contextmanager
def locked(models: Path, category: str) -> Iterator[None]:
    """Hold a category against other processes that change it too.

    Raises:
        ConflictError: another one has held it for half a minute.
    """
    try:
        with FileLock(models / category / ".lock", timeout=_LOCK_SECONDS):
            yield
    except Timeout as error:
        raise ConflictError(f"another process has been changing {category!r} for long; try again") from error


def _pointer(models: Path, category: str) -> tuple[str | None, str | None]:
    """The active version and the one before, as the file says; None for what it does not."""
    if not is_category(category):
        return None, None
    try:
        return pointer(read_file(models / category / ACTIVE, 1000).decode(errors="replace"))
    except (FileError, FileNotFoundError, NotADirectoryError):
        return None, None


def _is_there(models: Path, category: str, version: str) -> bool:
    return (
        is_category(category) and is_version(version) and (models / category / version / MANIFEST).is_file()
    )


def _expect_free(models: Path, manifest: Manifest) -> Path:
    check_category(manifest.category)
    if not is_version(manifest.version):
        raise BundleError(
            f"{manifest.version!r} cannot be a version: up to 64 letters, digits, '.', '_' and '-', starting "
            f"with a letter or a digit, not ending in .json and not {ACTIVE!r} or {CALIBRATIONS!r}"
        )
    target = models / manifest.category / manifest.version
    if target.exists() or target.is_symlink():
        raise ConflictError(f"{target} exists already; versions are never overwritten")
    return target
