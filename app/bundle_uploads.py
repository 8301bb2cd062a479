"""Uploads of new versions: received beside the models, tried out there, then moved into place."""

import asyncio
import errno
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from app.free_disk import expect_room_for_upload
from app.packing import unpack
from app.problems import Problem
from app.residency import Residency
from app.scheduling.concurrency_limit import ConcurrencyLimit
from flows.fastflow import bundle, models_folder
from flows.fastflow.atomic_files import sweep, temporary_directory

MAX_UPLOADS: Final = 2  # at a time: each takes disk twice, and the loader's time
_ARCHIVE: Final = "upload.zip"
_DISK_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Uploaded(NamedTuple):
    """A version that was let in, and the sha256 of its manifest."""

    version: str
    sha256: str


class BundleUploads:
    """Receives archives made by `flowgauge models pack`.

    Args:
        models: the models folder.
        residency: tries bundles out.
        max_bytes: bytes of all files that an archive may hold.
    """

    def __init__(self, models: Path, residency: Residency, max_bytes: int) -> None:
        self._models = models
        self._residency = residency
        self._max_bytes = max_bytes
        self._limit = ConcurrencyLimit(MAX_UPLOADS, "uploads are under way")

    async def receive(self, category: str, chunks: AsyncIterator[bytes]) -> Uploaded:
        """Take in a version. Of an upload that ends early or is refused nothing is left.

        Args:
            category: the category that the bundle must be of.
            chunks: the archive's bytes.

        Raises:
            Problem: rejected-bundle, with the reason; conflict if the version exists; queue-full if too many
                uploads are under way; too-large if the disk is full, or would have too little left for
                inspections; or what `chunks` raises.
        """
        with ExitStack() as cleanup:
            cleanup.enter_context(self._limit.hold(None))
            await asyncio.to_thread(sweep, self._models)
            # Not in the thread: one that is no longer waited for would make a directory that nobody removes.
            staging = cleanup.enter_context(temporary_directory(self._models))
            # Around all of it: the last bytes may reach the disk only when the file is closed.
            with _full_disk(), (staging / _ARCHIVE).open("xb") as file:
                async for chunk in chunks:
                    await asyncio.to_thread(_append, file, staging, chunk)
            # A complete archive is tried out and let in, or refused, even if nobody waits for the answer: a
            # thread that unpacks cannot be stopped.
            work = asyncio.create_task(self._let_in(category, staging, cleanup.pop_all()))
        return await asyncio.shield(work)

    async def _let_in(self, category: str, staging: Path, cleanup: ExitStack) -> Uploaded:
        with cleanup:
            try:
                with _full_disk():
                    archive = staging / _ARCHIVE
                    manifest = await asyncio.to_thread(unpack, archive, staging, category, self._max_bytes)
                folder = staging / category / manifest.version
                sha256 = await self._residency.check(folder)
                await asyncio.to_thread(models_folder.move_into_place, folder, self._models, manifest)
            except models_folder.ConflictError as error:
                raise Problem(
                    "conflict",
                    f"Version {manifest.version!r} of {category!r} exists; versions are never overwritten.",
                ) from error
            except bundle.BundleError as error:
                raise Problem("rejected-bundle", str(error)) from error
            return Uploaded(manifest.version, sha256)


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
