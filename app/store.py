"""Changes of the models folder by the service: uploads, activation, rollback, deletion."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from app import verdict
from app.bundle_uploads import BundleUploads
from app.calibrations import CalibrationFiles
from app.catalogue import problems_of, resolve
from app.category_settings import CategorySettings, SettingsFiles
from app.problems import Problem
from app.residency import Residency
from flows.fastflow import bundle, models_folder

logger = logging.getLogger("flowgauge.store")


class Activated(NamedTuple):
    """A version that serves now, its manifest's sha256, and the version that served before it."""

    version: str
    sha256: str
    previous: str | None


class Store:
    """The models folder of a running service.

    Changes of one category happen one after the other. A version is loaded and has reproduced its golden
    images before it can become active.

    Args:
        models: the models folder.
        max_bundle_bytes: of an upload, and of what is unpacked from it.

    Attributes:
        residency: where models are loaded.
        calibrations: those made after the versions.
        uploads: takes in new versions.
    """

    def __init__(
        self, models: Path, residency: Residency, max_bundle_bytes: int, calibrations: CalibrationFiles
    ) -> None:
        self.models = models
        self.residency = residency
        self._settings = SettingsFiles(models)
        self.calibrations = calibrations
        self.uploads = BundleUploads(models, residency, max_bundle_bytes)
        self._locks: dict[str, asyncio.Lock] = {}

    def settings(self, category: str) -> CategorySettings:
        """Return the settings of a category, see `SettingsFiles.get`."""
        return self._settings.get(category)

    async def change_settings(
        self, category: str, edit: Callable[[CategorySettings], CategorySettings]
    ) -> CategorySettings:
        """Change the settings of a category, see `SettingsFiles.change`."""
        return await asyncio.to_thread(self._settings.change, category, edit)

    async def activate(self, category: str, version: str) -> Activated:
        """Make a version the one that serves; on return new requests get it.

        Raises:
            Problem: unknown-model; rejected-bundle, with the reason, and the version before goes on serving;
                conflict if another process is changing the category.
        """
        async with self._lock(category):
            return await self._activate(category, version)

    async def rollback(self, category: str) -> Activated:
        """Activate the version that served before the active one, which becomes the one to roll back to.

        Raises:
            Problem: as `activate`; conflict if no version served before or it was deleted.
        """
        # The active version need not exist any more: that is a reason to go back.
        if await asyncio.to_thread(models_folder.active_version, self.models, category) is None:
            await asyncio.to_thread(resolve, self.models, category, None)
        async with self._lock(category):
            previous = await asyncio.to_thread(models_folder.previous_version, self.models, category)
            if previous is None:
                raise Problem(
                    "conflict",
                    f"No version of {category!r} served before the active one, or it was deleted. Activate "
                    "one by its name.",
                )
            return await self._activate(category, previous)

    async def unload(self, category: str, version: str) -> bool:
        """Take a version out of memory; it is loaded again when it is asked for.

        Returns:
            Whether it was there.

        Raises:
            Problem: unknown-model.
        """
        await asyncio.to_thread(resolve, self.models, category, version)
        return self.residency.unload(category, version)

    async def delete(self, category: str, version: str) -> str | None:
        """Remove a version. What is being inspected with it is finished.

        Returns:
            The sha256 of its manifest; None if that cannot be read.

        Raises:
            Problem: unknown-model; conflict if it is the active one or serves.
        """
        async with self._lock(category):
            if version == self.residency.serving(category):
                raise Problem("conflict", f"{category}/{version} is serving; activate another version first.")
            sha256 = await asyncio.to_thread(self._delete, category, version)
            self.residency.unload(category, version)
        return sha256

    async def _activate(self, category: str, version: str) -> Activated:
        detector = await self.residency.load(category, version)
        settings = await asyncio.to_thread(self._settings.get, category)
        await asyncio.to_thread(verdict.require_settings, detector, settings)
        before = await asyncio.to_thread(self._point_to, category, version)
        self.residency.serve(category, detector)
        return Activated(version, detector.sha256, before)

    def _point_to(self, category: str, version: str) -> str | None:
        with problems_of(self.models, category, version):
            before = models_folder.activate(self.models, category, version)
        for line in models_folder.left_behind(self.models, category, before, version):
            logger.warning("%s: %s", category, line)
        return before

    def _delete(self, category: str, version: str) -> str | None:
        sha256 = None
        with problems_of(self.models, category, version):
            folder = models_folder.resolve(self.models, category, version)
            with suppress(bundle.BundleError):
                sha256 = bundle.manifest_sha256(folder, bundle.read_manifest(folder))
            models_folder.delete(self.models, category, version)
        return sha256

    def _lock(self, category: str) -> asyncio.Lock:
        return self._locks.setdefault(category, asyncio.Lock())
