"""Changes of the models folder by the service: uploads, activation, rollback, deletion."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from app.errors.problems import DISK_FULL, Problem
from app.registry import model_settings
from app.registry.calibrations import CalibrationFiles
from app.registry.catalogue import as_problems, find_version_folder
from app.registry.category_settings import SettingsFiles
from app.registry.free_disk import require_room_for_upload
from app.registry.loaded_models import LoadedModels
from app.registry.model_files import ModelFiles
from app.registry.packing import unpack
from app.scheduling.concurrency_limit import ConcurrencyLimit
from flows.fastflow.bundle import models_folder
from flows.fastflow.bundle.bundle import BundleError
from flows.fastflow.files.atomic_files import remove_abandoned, temporary_directory
from flows.fastflow.manifest import Manifest

logger = logging.getLogger("flowgauge.store")

MAX_UPLOADS: Final = 2  # in parallel; each needs twice its size on disk, and the loader
_ARCHIVE: Final = "upload.zip"


class VersionChange(NamedTuple):
    """An uploaded or activated version, its manifest's SHA-256, and the previous version."""

    version: str
    sha256: str
    previous: str | None = None


class ModelStore:
    """The models folder of a running service.

    Changes of one category are serialized. Before its activation, a version is loaded and must reproduce its
    golden images. All changes raise the problem unknown-model for a missing version, and conflict if another
    process holds the category's lock.

    Args:
        max_bundle_bytes: limit of an upload, and of its unpacked size.
        calibrations: calibrations made after the versions.

    Attributes:
        fetch: see `ModelFiles.fetch`.
        settings, change_settings: see `SettingsFiles.get` and `change`.
    """

    def __init__(
        self,
        files: ModelFiles,
        loaded_models: LoadedModels,
        max_bundle_bytes: int,
        calibrations: CalibrationFiles,
    ) -> None:
        self.models = files.models
        self.fetch = files.fetch
        self.loaded_models = loaded_models
        self.calibrations = calibrations
        settings = SettingsFiles(files.models, files.changing)
        self.settings = settings.get
        self.change_settings = settings.change
        self._files = files
        self._max_bundle_bytes = max_bundle_bytes
        self._uploads = ConcurrencyLimit(MAX_UPLOADS, "uploads are under way")
        self._locks: dict[str, asyncio.Lock] = {}

    async def upload(self, category: str, chunks: AsyncIterator[bytes]) -> VersionChange:
        """Publish a version from an uploaded archive; a refused or incomplete upload leaves no files.

        Raises:
            Problem: rejected-bundle, with the reason; conflict if the version exists; queue-full if too many
                uploads run; too-large if the disk is full, or too little would be left for inspections; or
                what `chunks` raises.
        """
        with ExitStack() as cleanup:
            cleanup.enter_context(self._uploads.hold(None))
            await asyncio.to_thread(remove_abandoned, self.models)
            # Not in a thread: after a cancellation the thread would leave a directory behind.
            staging = cleanup.enter_context(temporary_directory(self.models))
            # Include the close: the last bytes may reach the disk only then.
            with _full_disk(), (staging / _ARCHIVE).open("xb") as file:
                async for chunk in chunks:
                    await asyncio.to_thread(_append, file, staging, chunk)
            # Process a complete archive even if the client disconnects: unpacking in a thread cannot be
            # stopped.
            work = asyncio.create_task(self._publish(category, staging, cleanup.pop_all()))
            work.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(work)

    async def activate(self, category: str, version: str) -> VersionChange:
        """Activate a version; after the return new requests get it.

        Raises:
            Problem: rejected-bundle, with the reason; the previous version continues to serve.
        """
        async with self._changing(category):
            return await self._activate(category, version)

    async def replace_active(self, category: str, before: str | None, version: str) -> VersionChange:
        """Activate a version if the active one is still that of before, or there is still none.

        Raises:
            Problem: as `activate`; conflict if another version was activated.
        """
        async with self._changing(category):
            active = await asyncio.to_thread(models_folder.active_version, self.models, category)
            if active != before:
                raise Problem("conflict", f"{active or 'No version'} was activated meanwhile.")
            return await self._activate(category, version)

    async def rollback(self, category: str) -> VersionChange:
        """Activate the previous version; the active one becomes the previous.

        Raises:
            Problem: as `activate`; conflict if there is no previous version or it was deleted.
        """
        async with self._changing(category):
            previous = await asyncio.to_thread(models_folder.previous_version, self.models, category)
            if previous is None:
                # Only here, because a missing active version is a reason to roll back.
                await asyncio.to_thread(find_version_folder, self.models, category, None)
                raise Problem(
                    "conflict",
                    f"{category!r} has no previous version, or it was deleted. Activate a version by name.",
                )
            return await self._activate(category, previous)

    async def delete(self, category: str, version: str) -> None:
        """Delete a version that is neither active nor serving; running inspections finish."""
        async with self._changing(category):
            if version == self.loaded_models.serving_version(category):
                raise Problem("conflict", f"{category}/{version} is serving; activate another version first.")
            with as_problems(self.models, category, version):
                await asyncio.to_thread(self._files.delete, category, version)
            self.loaded_models.drop(category, version)

    async def publish(self, folder: Path, manifest: Manifest) -> str:
        """Verify a version in a folder of this disk, move it into place, and return its manifest's SHA-256.

        Raises:
            Problem: rejected-bundle, with the reason; conflict if the version exists.
        """
        sha256 = await self.loaded_models.try_load(folder)
        try:
            await asyncio.to_thread(self._files.publish, folder, manifest)
        except models_folder.ModelConflictError as error:
            existing = f"Version {manifest.version!r} of {manifest.category!r} exists"
            raise Problem("conflict", f"{existing}; versions are never overwritten.") from error
        return sha256

    def require_serving(self, manifest: Manifest) -> None:
        """Require that a version still serves: what was computed for it fits no other."""
        if self.loaded_models.serving_version(manifest.category) != manifest.version:
            detail = "Another version serves since the request was sent; nothing was changed. Send again."
            raise Problem("conflict", detail)

    async def _publish(self, category: str, staging: Path, cleanup: ExitStack) -> VersionChange:
        with cleanup:
            try:
                with _full_disk():
                    manifest = await asyncio.to_thread(
                        unpack, staging / _ARCHIVE, staging, category, self._max_bundle_bytes
                    )
            except BundleError as error:
                raise Problem("rejected-bundle", str(error)) from error
            sha256 = await self.publish(staging / category / manifest.version, manifest)
            return VersionChange(manifest.version, sha256)

    async def _activate(self, category: str, version: str) -> VersionChange:
        detector = await self.loaded_models.load(category, version)
        settings = await asyncio.to_thread(self.settings, category)
        await asyncio.to_thread(model_settings.require_compatible_settings, detector, settings)
        with as_problems(self.models, category, version):
            before = await asyncio.to_thread(self._files.activate, category, version)
        self.loaded_models.serve(category, detector)
        for line in await asyncio.to_thread(
            models_folder.describe_lost_calibrations, self.models, category, before, version
        ):
            logger.warning("%s: %s", category, line)
        return VersionChange(version, detector.sha256, before)

    @asynccontextmanager
    async def _changing(self, category: str) -> AsyncIterator[None]:
        async with self._locks.setdefault(category, asyncio.Lock()):
            await asyncio.to_thread(self._files.refresh)
            yield


def _append(file: BinaryIO, folder: Path, data: bytes) -> None:
    require_room_for_upload(folder, len(data))
    file.write(data)


@contextmanager
def _full_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise Problem(
            "too-large",
            "The models' disk has no room for the bundle beside the reserve for inspections. Delete unused "
            "versions.",
        ) from error
