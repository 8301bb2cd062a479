"""The versions of a models folder, looked up for each request."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from app.errors.problems import Problem
from app.registry.file_cache import DamagedFileError, FileCache
from flows.fastflow.bundle import bundle, models_folder
from flows.fastflow.bundle.models_folder import Pointer


class Catalogue:
    """The versions of a models folder.

    A lookup is two stats in the event loop: the folder must be on a disk that answers at once. What is
    published, activated or deleted there counts from the next request on.
    """

    def __init__(self, models: Path) -> None:
        self._models: Final = models
        self._pointers: FileCache[Pointer] = FileCache()

    async def find(self, category: str, version: str | None) -> str:
        """Return an existing version; by default the active one, which need not exist.

        If the file `active` becomes unreadable, the version that it named before stays active.

        Raises:
            Problem: unknown-model; model-loading if the models folder or the file `active` cannot be read.
        """
        if version is None:
            found = self._active_version(category)
        else:
            found = version if self._has(category, version) else None
        if found is None:
            raise await asyncio.to_thread(unknown_model, self._models, category, version)
        return found

    def _has(self, category: str, version: str) -> bool:
        if models_folder.is_category(category) and models_folder.is_version(version):
            return (self._models / category / version / bundle.MANIFEST).is_file()
        return False

    def _active_version(self, category: str) -> str | None:
        folder = self._models / category
        if not models_folder.is_category(category) or not folder.is_dir():
            return None
        try:
            pointer = self._pointers.get(folder / models_folder.ACTIVE, models_folder.read_pointer, folder)
        except DamagedFileError as error:
            raise Problem(
                "model-loading",
                f"The file {models_folder.ACTIVE!r} of category {category!r} is damaged, so nobody knows its "
                "active version. Activate a version by its name.",
            ) from error
        return None if pointer is None else pointer.active


def categories(models: Path) -> list[str]:
    """Return the categories that have a version, sorted.

    Raises:
        Problem: model-loading if the models folder cannot be read.
    """
    require_readable(models)
    return models_folder.categories(models)


def resolve(models: Path, category: str, version: str | None) -> Path:
    """Return the folder of a version; of the active one for None.

    Raises:
        Problem: unknown-model; model-loading if the models folder cannot be read.
    """
    with problems_of(models, category, version):
        return models_folder.resolve(models, category, version)


@contextmanager
def problems_of(models: Path, category: str, version: str | None = None) -> Iterator[None]:
    """Turn what the models folder refuses into a problem: unknown-model, model-loading or conflict."""
    try:
        yield
    except models_folder.UnknownModelError as error:
        raise unknown_model(models, category, version) from error
    except models_folder.ModelConflictError as error:
        raise Problem("conflict", str(error)) from error


def unknown_model(models: Path, category: str, version: str | None) -> Problem:
    """Return the problem of a category or version that does not exist, or of an unreadable models folder."""
    try:
        require_readable(models)
    except Problem as problem:
        return problem
    versions = ", ".join(models_folder.versions(models, category))
    if not versions:
        # The detail names no other category: the key may not be for those.
        detail = f"There is no model of category {category[:64]!r}; GET /v1/models lists them."
    elif version is None:
        detail = f"Category {category!r} has no active version; there are: {versions}."
    else:
        detail = f"Category {category!r} has no version {version[:64]!r}; there are: {versions}."
    return Problem("unknown-model", detail)


def require_readable(models: Path) -> None:
    """Raise the problem model-loading if the models folder cannot be read: a lost one must not look empty."""
    try:
        next(models.iterdir(), None)
    except OSError as error:
        raise Problem("model-loading", "The models folder cannot be read.") from error
