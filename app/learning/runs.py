"""Runs of learning: one at a time, each in a child process, so that serving keeps its time and memory."""

import asyncio
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import torch

from app.errors.problems import Problem
from app.learning.reviews import LearningSet
from app.registry.model_store import ModelStore
from flows.fastflow.bundle.bundle import BundleError, read_manifest
from flows.fastflow.files.atomic_files import temporary_directory
from flows.fastflow.learning.learn import learn
from flows.fastflow.learning.reviewed import LearningError
from flows.fastflow.manifest import Manifest

_SPAWN: Final = multiprocessing.get_context("spawn")
_NICENESS: Final = 10  # inspections have priority
_POLL_SECONDS: Final = 0.1

_Job = Callable[[Callable[[float], None]], Path]  # of a function for the share that is done


class LearningRuns:
    """Runs of learning of a service, from models in `store` on a device. Use it in the event loop."""

    def __init__(self, store: ModelStore, device: str) -> None:
        self._store = store
        self._device = device
        self._category: str | None = None
        self._progress = 0.0
        self._ended = False

    def progress(self, category: str) -> float | None:
        """Return the share of the reviewed images that a category's run has read; None without a run."""
        return self._progress if category == self._category else None

    def end(self) -> None:
        """End the run, because the server stops."""
        self._ended = True

    async def learn(self, images: LearningSet) -> tuple[Manifest, str]:
        """Publish an inactive version that has learned; return its manifest, and the SHA-256 of its file.

        Raises:
            Problem: conflict if the category's run is under way, nothing can be learned, or another version
                serves by now; queue-full if another category learns; draining; or as `ModelStore.publish`.
        """
        if self._category == (category := images.manifest.category):
            raise Problem("conflict", f"{category!r} is learning already; wait for its version.")
        if self._category is not None:
            # Unnamed: the caller's key may not cover it.
            raise Problem("queue-full", "Another category is learning; try again later.", 30)
        self._category, self._progress = category, 0.0
        try:
            self._store.require_room(images.bundle)
            with temporary_directory(self._store.models) as staging:
                folder = await self._run(
                    partial(learn, images.bundle, staging, images.defects, images.good, self._device)
                )
                manifest = await asyncio.to_thread(read_manifest, folder)
                self._store.require_serving(images.manifest)
                return manifest, await self._store.publish(folder, manifest)
        finally:
            self._category = None

    async def _run(self, job: _Job) -> Path:
        receiver, sender = _SPAWN.Pipe(duplex=False)
        process = _SPAWN.Process(target=_run_job, args=(sender, job), name="learning", daemon=True)
        with receiver:
            # In a thread: it waits until the process has read its arguments.
            await asyncio.to_thread(process.start)
            sender.close()
            try:
                with suppress(EOFError):  # it ended without a result
                    while not self._ended:
                        if not receiver.poll():
                            await asyncio.sleep(_POLL_SECONDS)
                        elif isinstance(message := receiver.recv(), Path):
                            return message
                        elif isinstance(message, str):
                            raise Problem("conflict", f"{message[0].upper()}{message[1:]}.")
                        else:
                            self._progress = message
            finally:
                process.kill()
                process.join()
        if self._ended:
            raise Problem("draining", "The server is stopping, so nothing was learned.")
        raise RuntimeError(f"the learning process ended without a result, with code {process.exitcode}")


def _run_job(connection: "Connection[float | Path | str, None]", job: _Job) -> None:
    """Learn, and send the share that is done, then the new version's directory or the reason why not."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server
    os.nice(_NICENESS)
    torch.set_num_threads(1)
    try:
        connection.send(job(connection.send))
    except LearningError as error:
        connection.send(str(error))
    except BundleError:
        traceback.print_exc()  # names the file
        connection.send("a file of the version is missing or was changed; upload or train it again")
