"""Changes of the models folder by the service: uploads, activation, rollback, deletion."""

import asyncio
import errno
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from app.errors.problems import Problem
from app.registry import model_settings
from app.registry.calibrations import CalibrationFiles
from app.registry.catalogue import problems_of, resolve
from app.registry.category_settings import SettingsFiles
from app.registry.free_disk import expect_room_for_upload
from app.registry.packing import unpack
from app.registry.residency import Residency
from app.scheduling.concurrency_limit import ConcurrencyLimit
from flows.fastflow.bundle import models_folder
from flows.fastflow.bundle.bundle import BundleError
from flows.fastflow.files.atomic_files import remove_abandoned, temporary_directory

logger = logging.getLogger("flowgauge.store")

MAX_UPLOADS: Final = 2  # at a time: each takes disk twice, and the loader's time
_ARCHIVE: Final = "upload.zip"
_DISK_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Changed(NamedTuple):
    """A version that came in or serves now, its manifest's sha256, and the version that served before."""

    version: str
    sha256: str
    previous: str | None = None


class Store:
    """The models folder of a running service.

    Changes of one category happen one after the other. A version is loaded and has reproduced its golden
    images before it can become active. All changes of a version raise the problem unknown-model if it does
    not exist, and conflict if another process is changing the category.

    Args:
        models: the models folder.
        residency: where models are loaded.
        max_bundle_bytes: of an upload, and of what is unpacked from it.
        calibrations: those made after the versions.

    Attributes:
        settings, change_settings: as `SettingsFiles.get` and `change`.
    """

    def __init__(
        self, models: Path, residency: Residency, max_bundle_bytes: int, calibrations: CalibrationFiles
    ) -> None:
        self.models = models
        self.residency = residency
        self.calibrations = calibrations
        files = SettingsFiles(models)
        self.settings = files.get
        self.change_settings = files.change
        self._max_bundle_bytes = max_bundle_bytes
        self._uploads = ConcurrencyLimit(MAX_UPLOADS, "uploads are under way")
        self._locks: dict[str, asyncio.Lock] = {}

    async def upload(self, category: str, chunks: AsyncIterator[bytes]) -> Changed:
        """Take in a version as an archive's bytes. Of one that ends early or is refused nothing is left.

        Raises:
            Problem: rejected-bundle, with the reason; conflict if the version exists; queue-full if too many
                uploads are under way; too-large if the disk is full, or would have too little left for
                inspections; or what `chunks` raises.
        """
        with ExitStack() as cleanup:
            cleanup.enter_context(self._uploads.hold(None))
            await asyncio.to_thread(remove_abandoned, self.models)
            # Not in the thread: one that is no longer waited for would make a directory that nobody removes.
            staging = cleanup.enter_context(temporary_directory(self.models))
            # Around all of it: the last bytes may reach the disk only when the file is closed.
            with _full_disk(), (staging / _ARCHIVE).open("xb") as file:
                async for chunk in chunks:
                    await asyncio.to_thread(_append, file, staging, chunk)
            # A complete archive is tried out and let in, or refused, even if nobody waits for the answer: a
            # thread that unpacks cannot be stopped.
            work = asyncio.create_task(self._let_in(category, staging, cleanup.pop_all()))
            work.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(work)

    async def activate(self, category: str, version: str) -> Changed:
        """Make a version the one that serves; on return new requests get it.

        Raises:
            Problem: rejected-bundle, with the reason, and the version before goes on serving.
        """
        async with self._lock(category):
            return await self._activate(category, version)

    async def rollback(self, category: str) -> Changed:
        """Activate the version that served before the active one, which becomes the one to roll back to.

        Raises:
            Problem: as `activate`; conflict if no version served before or it was deleted.
        """
        async with self._lock(category):
            previous = await asyncio.to_thread(models_folder.previous_version, self.models, category)
            if previous is None:
                # Only here: that the active one is not there any more is a reason to go back.
                await asyncio.to_thread(resolve, self.models, category, None)
                raise Problem(
                    "conflict",
                    f"No version of {category!r} served before the active one, or it was deleted. Activate "
                    "one by its name.",
                )
            return await self._activate(category, previous)

    async def unload(self, category: str, version: str) -> bool:
        """Take a version out of memory until it is asked for; returns whether it was there."""
        await asyncio.to_thread(resolve, self.models, category, version)
        return self.residency.unload(category, version)

    async def delete(self, category: str, version: str) -> None:
        """Remove a version that neither is active nor serves. What is being inspected with it is finished."""
        async with self._lock(category):
            if version == self.residency.serving(category):
                raise Problem("conflict", f"{category}/{version} is serving; activate another version first.")
            with problems_of(self.models, category, version):
                await asyncio.to_thread(models_folder.delete, self.models, category, version)
            self.residency.unload(category, version)

    async def _let_in(self, category: str, staging: Path, cleanup: ExitStack) -> Changed:
        with cleanup:
            try:
                with _full_disk():
                    manifest = await asyncio.to_thread(
                        unpack, staging / _ARCHIVE, staging, category, self._max_bundle_bytes
                    )
                folder = staging / category / manifest.version
                sha256 = await self.residency.check(folder)
                await asyncio.to_thread(models_folder.move_into_place, folder, self.models, manifest)
            except models_folder.ModelConflictError as error:
                raise Problem(
                    "conflict",
                    f"Version {manifest.version!r} of {category!r} exists; versions are never overwritten.",
                ) from error
            except BundleError as error:
                raise Problem("rejected-bundle", str(error)) from error
            return Changed(manifest.version, sha256)

    async def _activate(self, category: str, version: str) -> Changed:
        detector = await self.residency.load(category, version)
        settings = await asyncio.to_thread(self.settings, category)
        await asyncio.to_thread(model_settings.require_settings, detector, settings)
        with problems_of(self.models, category, version):
            before = await asyncio.to_thread(models_folder.activate, self.models, category, version)
        self.residency.serve(category, detector)
        for line in await asyncio.to_thread(
            models_folder.describe_lost_calibrations, self.models, category, before, version
        ):
            logger.warning("%s: %s", category, line)
        return Changed(version, detector.sha256, before)

    def _lock(self, category: str) -> asyncio.Lock:
        return self._locks.setdefault(category, asyncio.Lock())


def _append(file: BinaryIO, folder: Path, data: bytes) -> None:
    expect_room_for_upload(folder, len(data))
    file.write(data)


@contextmanager
def _full_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        raise Problem(
            "too-large",
            "The models' disk has no room for the bundle: what inspections need stays free. Delete versions "
            "that nobody needs.",
        ) from error
