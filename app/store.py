"""The models folder as the service changes it: versions come, are activated, rolled back and deleted."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app import verdict
from app.bundle_uploads import BundleUploads, Uploaded
from app.calibrations import CalibrationFiles
from app.catalogue import expect_readable
from app.category_settings import CategorySettings, SettingsFiles, telling_conflicts
from app.problems import Problem
from app.residency import Residency
from flows.fastflow import bundle, models_folder
from flows.fastflow.plain_files import sweep

logger = logging.getLogger("flowgauge.store")

# After a version was loaded and activated, requests get it at once, unless memory is so short that it was
# dropped again in between.
_ATTEMPTS: Final = 500
_PAUSE: Final = 0.02


@dataclass(frozen=True)
class Activated:
    """A version that serves now, its manifest's sha256, and the version that served before it."""

    version: str
    sha256: str
    previous: str | None


class Store:
    """The models folder of a running service.

    Changes of one category happen one after the other; a version is loaded and has reproduced its golden
    pictures before it can become active.

    Args:
        models: the models folder.
        residency: where models are loaded.
        max_bundle_bytes: of an upload, and of what is unpacked from it.

    Attributes:
        calibrations: those made after the versions.
    """

    def __init__(
        self, models: Path, residency: Residency, max_bundle_bytes: int, calibrations: CalibrationFiles
    ) -> None:
        self.models = models
        self._residency = residency
        self._settings = SettingsFiles(models)
        self.calibrations = calibrations
        # One after the other, and what waits for its turn keeps no thread from other work.
        self._settings_thread = ThreadPoolExecutor(1, "settings")
        self._uploads = BundleUploads(models, residency, max_bundle_bytes)
        self._locks: dict[str, asyncio.Lock] = {}

    def settings(self, category: str) -> CategorySettings:
        """The settings of a category, see `SettingsFiles.get`."""
        return self._settings.get(category)

    async def change_settings(
        self, category: str, edit: Callable[[CategorySettings], CategorySettings]
    ) -> CategorySettings:
        """Change the settings of a category, see `SettingsFiles.change`."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._settings_thread, self._settings.change, category, edit)

    def close(self) -> None:
        """Finish a change that runs, and end the thread."""
        self._settings_thread.shutdown(cancel_futures=True)

    def sweep(self) -> None:
        """Remove what killed writers have left, a day after they were at it."""
        # A folder that cannot be read is no reason not to start; readiness tells it.
        with suppress(OSError):
            categories = (self.models / category for category in models_folder.categories(self.models))
            for folder in (self.models, self.models / models_folder.BACKBONES, *categories):
                sweep(folder)

    async def upload(self, category: str, chunks: AsyncIterator[bytes], declared: int = 0) -> Uploaded:
        """Take in a new version, see `BundleUploads.receive`."""
        return await self._uploads.receive(category, chunks, declared)

    async def activate(self, category: str, version: str) -> Activated:
        """Make a version the one that serves; on return new requests get it.

        Raises:
            Problem: unknown-model; rejected-bundle, with the reason, and the version before goes on serving.
        """
        await asyncio.to_thread(resolve, self.models, category, version)
        async with self._lock(category):
            return await self._activate(category, version)

    async def rollback(self, category: str) -> Activated:
        """Activate the version that served before the active one, which becomes the one to roll back to.

        Raises:
            Problem: as `activate`; conflict, where no version served before or it was deleted.
        """
        # The active one need not be there any more: that is a reason to go back.
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
        return self._residency.unload(category, version)

    async def delete(self, category: str, version: str) -> str | None:
        """Remove a version. What is being inspected with it is finished.

        Returns:
            The sha256 of its manifest; None if that cannot be read.

        Raises:
            Problem: unknown-model; conflict, if it is the active one, or serves in its place.
        """
        await asyncio.to_thread(resolve, self.models, category, version)
        async with self._lock(category):
            active = await asyncio.to_thread(models_folder.active_version, self.models, category)
            if version != active and version == self._residency.serving(category):
                raise Problem(
                    "conflict",
                    f"{category}/{version} serves in place of {active}, the active one; activate another "
                    "version first",
                )
            sha256 = await asyncio.to_thread(self._delete, category, version)
            self._residency.unload(category, version)
        return sha256

    async def _activate(self, category: str, version: str) -> Activated:
        detector = await self._residency.load(category, version)
        settings = await asyncio.to_thread(self._settings.get, category)
        await asyncio.to_thread(verdict.expect_settings, detector, settings)
        before = await asyncio.to_thread(self._point_to, category, version)
        for _ in range(_ATTEMPTS):
            serving = await self._residency.get(category)
            if serving.manifest.version == version:
                return Activated(version, serving.sha256, before)
            if await asyncio.to_thread(models_folder.active_version, self.models, category) != version:
                raise Problem(
                    "conflict", f"Another version of {category!r} was activated at the same time. Look again."
                )
            await self._residency.load(category, version)
            await asyncio.sleep(_PAUSE)
        raise Problem(
            "model-loading", f"Version {version!r} is active, but was dropped from memory again and again."
        )

    def _point_to(self, category: str, version: str) -> str | None:
        try:
            with telling_conflicts():
                before = models_folder.activate(self.models, category, version)
        except models_folder.UnknownModelError as error:
            raise unknown(category, version) from error
        for line in models_folder.left_behind(self.models, category, before, version):
            logger.warning("%s: %s", category, line)
        return before

    def _delete(self, category: str, version: str) -> str | None:
        folder = self.models / category / version
        sha256 = None
        with suppress(bundle.BundleError):
            sha256 = bundle.manifest_sha256(folder, bundle.read_manifest(folder))
        try:
            with telling_conflicts():
                models_folder.delete(self.models, category, version)
        except models_folder.UnknownModelError as error:
            raise unknown(category, version) from error
        return sha256

    def _lock(self, category: str) -> asyncio.Lock:
        return self._locks.setdefault(category, asyncio.Lock())


def resolve(models: Path, category: str, version: str | None) -> Path:
    """The folder of a version; of the active one for None.

    Raises:
        Problem: unknown-model, or model-loading where the models folder cannot be read.
    """
    try:
        return models_folder.resolve(models, category, version)
    except models_folder.UnknownModelError as error:
        expect_readable(models)
        raise unknown(category, version) from error


def unknown(category: str, version: str | None) -> Problem:
    """The problem of a category or version that is not there."""
    there = f"GET /v1/models/{category[:64]} lists those there are"
    if version is None:
        return Problem("unknown-model", f"Category {category[:64]!r} has no active version; {there}.")
    return Problem("unknown-model", f"Category {category[:64]!r} has no version {version[:64]!r}; {there}.")
