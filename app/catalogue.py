"""Which versions are in the models folder: asked for every request, so the answer costs microseconds."""

import asyncio
import os
import stat
from contextlib import suppress
from pathlib import Path

from app.problems import Problem
from flows.fastflow import bundle, models_folder


class Catalogue:
    """The versions of a models folder.

    Two files are looked at for each request, in the event loop: the folder must be on a disk that answers at
    once. Whatever is published, activated or deleted there counts from the next request on.

    Args:
        models: the models folder.
    """

    def __init__(self, models: Path) -> None:
        self._models = models
        self._folder = os.fspath(models)  # a Path takes several times as long as what it is asked for here
        self._active: dict[str, tuple[tuple[int, ...], str | None]] = {}

    async def find(self, category: str, version: str | None) -> str:
        """Give a version that is there; by default the active one, which need not be: another may stand in.

        Raises:
            Problem: unknown-model; model-loading, when the models folder cannot be read.
        """
        if version is None:
            active = self._active_version(category)
            if active is not None:
                return active
        elif self.has(category, version):
            return version
        raise await asyncio.to_thread(self._unknown, category, version)

    def has(self, category: str, version: str) -> bool:
        """Whether a version is there."""
        if models_folder.is_category(category) and models_folder.is_version(version):
            with suppress(OSError):
                manifest = os.stat(f"{self._folder}/{category}/{version}/{bundle.MANIFEST}")  # noqa: PTH116
                return stat.S_ISREG(manifest.st_mode)
        return False

    def categories(self) -> set[str]:
        """All categories that have a version; reads directories, which is not for the event loop's thread.

        Raises:
            Problem: model-loading, when the models folder cannot be read.
        """
        expect_readable(self._models)
        return set(models_folder.categories(self._models))

    def _active_version(self, category: str) -> str | None:
        """What the category's file `active` says; read again only when it has changed."""
        if not models_folder.is_category(category):
            return None
        try:
            status = os.stat(f"{self._folder}/{category}/{models_folder.ACTIVE}")  # noqa: PTH116
            mark = status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
            known = self._active.get(category)
            if known is None or known[0] != mark:
                known = self._active[category] = mark, models_folder.active_version(self._models, category)
        except OSError:
            return None
        return known[1]

    def _unknown(self, category: str, version: str | None) -> Problem:
        expect_readable(self._models)
        versions = models_folder.versions(self._models, category)
        if not versions:
            # Not their names: the key may be for others.
            detail = f"There is no model of category {category[:64]!r}; GET /v1/models lists them."
        elif version is None:
            detail = f"Category {category!r} has no active version; there are: {', '.join(versions)}."
        else:
            there = ", ".join(versions)
            detail = f"Category {category!r} has no version {version[:64]!r}; there are: {there}."
        return Problem("unknown-model", detail)


def expect_readable(models: Path) -> None:
    """Tell a models folder that cannot be read from an empty one, which `bundle` does not.

    Raises:
        Problem: model-loading.
    """
    try:
        next(models.iterdir(), None)
    except OSError as error:
        raise Problem("model-loading", "The models folder cannot be read.") from error
