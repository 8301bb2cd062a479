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

    A lookup costs two stat calls in the event loop, so the folder must be on a fast disk. Changes of the
    folder take effect at the next request.
    """

    def __init__(self, models: Path) -> None:
        self._models: Final = models
        self._pointers: FileCache[Pointer] = FileCache()

    async def find(self, category: str, version: str | None) -> str:
        """Return an existing version; by default the active one, which may be missing.

        If the file `active` becomes unreadable, the last known version stays active.

        Raises:
            Problem: unknown-model; model-loading if the models folder or the file `active` cannot be read.
        """
        if version is None:
            found = self.active_version(category)
        else:
            found = version if self.has(category, version) else None
        if found is None:
            raise await asyncio.to_thread(unknown_model_problem, self._models, category, version)
        return found

    def has(self, category: str, version: str) -> bool:
        if models_folder.is_category(category) and models_folder.is_version(version):
            return (self._models / category / version / bundle.MANIFEST).is_file()
        return False

    def active_version(self, category: str) -> str | None:
        """Return the active version, which may be missing; None if there is none; raises as `find`."""
        folder = self._models / category
        if not models_folder.is_category(category) or not folder.is_dir():
            return None
        try:
            pointer = self._pointers.get(folder / models_folder.ACTIVE, models_folder.read_pointer, folder)
        except DamagedFileError as error:
            raise Problem(
                "model-loading",
                f"The file {models_folder.ACTIVE!r} of category {category!r} is damaged, so its active "
                "version is unknown. Activate a version by name.",
            ) from error
        return None if pointer is None else pointer.active


def list_categories(models: Path) -> list[str]:
    """Return the categories that have a version, sorted.

    Raises:
        Problem: model-loading if the models folder cannot be read.
    """
    require_readable(models)
    return models_folder.categories(models)


def find_version_folder(models: Path, category: str, version: str | None) -> Path:
    """Return the folder of a version; of the active one for None.

    Raises:
        Problem: unknown-model; model-loading if the models folder cannot be read.
    """
    with as_problems(models, category, version):
        return models_folder.resolve(models, category, version)


@contextmanager
def as_problems(models: Path, category: str, version: str | None = None) -> Iterator[None]:
    """Convert errors of the models folder to problems: unknown-model, model-loading, conflict."""
    try:
        yield
    except models_folder.UnknownModelError as error:
        raise unknown_model_problem(models, category, version) from error
    except models_folder.ModelConflictError as error:
        raise Problem("conflict", str(error)) from error


def unknown_model_problem(models: Path, category: str, version: str | None) -> Problem:
    """Return the problem of a missing category or version, or of an unreadable models folder."""
    try:
        require_readable(models)
    except Problem as problem:
        return problem
    versions = ", ".join(models_folder.versions(models, category))
    if not versions:
        # Name no other category: the key may have no access to it.
        detail = f"There is no model of category {category[:64]!r}; GET /v1/models lists them."
    elif version is None:
        detail = f"Category {category!r} has no active version; there are: {versions}."
    else:
        detail = f"Category {category!r} has no version {version[:64]!r}; there are: {versions}."
    return Problem("unknown-model", detail)


def require_readable(models: Path) -> None:
    """Raise the problem model-loading if the models folder is unreadable, which must not look empty."""
    try:
        next(models.iterdir(), None)
    except OSError as error:
        raise Problem("model-loading", "The models folder cannot be read.") from error
