"""Which models are in memory: loaded when first asked for, dropped when another version has taken over."""

import asyncio
import logging
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from weakref import WeakSet

from app.problems import Problem
from flows.fastflow import bundle
from flows.fastflow.detector import Detector, fits
from flows.fastflow.features import FeatureExtractor

logger = logging.getLogger("flowgauge.residency")

Key = tuple[str, str]  # category, version

# For so long a bundle that could not be loaded is not tried again, so that requests for it cost
# nothing; one that is repaired need not wait for a restart.
REFUSAL_SECONDS = 10.0
_LONGEST_PAUSE = 300.0


class Residency:
    """The loaded models of a models folder.

    Every request reads which version is active, so a newly published one is served without a
    restart: until it is loaded, and if it is refused, the one before it goes on serving. Requests wait for
    a load only where nothing good serves yet, and all for the same one. Categories with the same backbone
    weights and stages share one feature extractor.

    Args:
        models: the models folder.
        device: as for `Detector.load`.
        extra_versions: versions kept besides the active ones: those asked for by name, the latest.
    """

    def __init__(self, models: Path, device: str, extra_versions: int) -> None:
        self._models = models
        self._device = device
        self._extra_versions = extra_versions
        self._loads: dict[Key, asyncio.Task[Detector | None]] = {}
        self._active: dict[str, str] = {}
        self._serving: dict[str, str] = {}  # the version that was active last and could be loaded
        self._complaints: dict[Key, str] = {}
        self._extras: OrderedDict[Key, None] = OrderedDict()
        self._missing: set[str] | None = set()
        # One thread: two categories never build the same backbone twice.
        self._loader = ThreadPoolExecutor(1, "loader")
        self._extractors: WeakSet[FeatureExtractor] = WeakSet()

    async def get(self, category: str, version: str | None = None) -> Detector:
        """Give a model, loading it first if need be.

        Args:
            category: the category.
            version: a version, or None for the one that is active now; as long as that is not loaded, the
                last one that was active and good.

        Raises:
            Problem: unknown-model; rejected-bundle; model-loading, when the models folder cannot be
                read.
        """
        key = category, await asyncio.to_thread(self._resolve, category, version)
        if version is None:
            self._active[category] = key[1]
            self._extras.pop(key, None)
        elif self._active.get(category) != version:
            self._extras[key] = None
            self._extras.move_to_end(key)
            while len(self._extras) > self._extra_versions:
                self._extras.popitem(last=False)
        load = self._loads.get(key)
        if load is None:
            load = self._loads[key] = asyncio.create_task(self._load(key))
            load.add_done_callback(lambda _: self._settle(category))
        self._settle(category)
        if version is None and category in self._serving:
            load = self._loads[category, self._serving[category]]
        # Shielded: a request that is cancelled must not cancel the load that others wait for.
        detector = await asyncio.shield(load)
        if detector is None:
            raise Problem(
                "rejected-bundle",
                f"Version {key[1]!r} of {category!r} cannot be loaded: its bundle is damaged or incomplete, "
                "or its backbone's weights are missing here. Publish it again; the server's log has more.",
            )
        if version is None and self._missing:
            self._missing.discard(category)
        return detector

    async def preload(self) -> None:
        """Load every active model, and try those that fail again, ever less often, until none is missing."""
        self._missing = None
        pause = REFUSAL_SECONDS
        while True:
            try:
                if self._missing is None:
                    self._missing = await asyncio.to_thread(self._categories)
                for category in sorted(self._missing):
                    await self._preload_one(category)
            except (OSError, Problem):
                logger.exception("the models folder %s cannot be read", self._models)
            if self._missing is not None and not self._missing:
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def expect_ready(self) -> None:
        """Read the models folder, which is not for the event loop's thread.

        Raises:
            Problem: model-loading, unless the folder can be read and no model to preload is missing.
        """
        expect_readable(self._models)
        if self._missing is None:
            raise Problem("model-loading", "The active models are not known yet.")
        if self._missing:
            raise Problem("model-loading", f"Active models that are not loaded: {len(self._missing)}.")

    def close(self) -> None:
        """Let a load that runs finish, and end the loader's thread."""
        self._loader.shutdown(cancel_futures=True)

    async def _preload_one(self, category: str) -> None:
        try:
            await self.get(category)
        except Problem as problem:
            # What has been taken away meanwhile is not waited for; a refused bundle is in the log
            # already.
            if problem.name == "unknown-model" and self._missing:
                self._missing.discard(category)

    def _categories(self) -> set[str]:
        expect_readable(self._models)
        return set(bundle.categories(self._models))

    def _resolve(self, category: str, version: str | None) -> str:
        try:
            return bundle.resolve(self._models, category, version).name
        except ValueError as error:
            expect_readable(self._models)
            raise Problem("unknown-model", self._unknown(category, version)) from error

    def _unknown(self, category: str, version: str | None) -> str:
        versions = bundle.versions(self._models, category)
        if not versions:
            there = ", ".join(bundle.categories(self._models)) or "none"
            return f"There is no model of category {category[:64]!r}; there are: {there}."
        there = ", ".join(versions)
        if version is None:
            return f"Category {category!r} has no active version; there are: {there}."
        return f"Category {category!r} has no version {version[:64]!r}; there are: {there}."

    async def _load(self, key: Key) -> Detector | None:
        loop = asyncio.get_running_loop()
        start = time.perf_counter()
        try:
            detector = await loop.run_in_executor(self._loader, self._load_now, key)
        # Reading a damaged file can fail in any way; none of them may reach the other models.
        except Exception as error:
            self._complain(key, error)
            loop.call_later(REFUSAL_SECONDS, self._forget, key, asyncio.current_task())
            return None
        self._complaints.pop(key, None)
        logger.info("loaded %s/%s in %.1f s", *key, time.perf_counter() - start)
        return detector

    def _complain(self, key: Key, error: Exception) -> None:
        """Log why a version is refused, once: it is tried again and again."""
        if self._complaints.get(key) == repr(error):
            return
        self._complaints[key] = repr(error)
        serving = self._serving.get(key[0])
        rest = f"; {serving} goes on serving" if serving else ""
        logger.error("%s/%s was refused%s", *key, rest, exc_info=error)

    def _load_now(self, key: Key) -> Detector:
        folder = self._models / key[0] / key[1]
        manifest = bundle.read_manifest(folder)
        shared = next((e for e in self._extractors if fits(e, manifest)), None)
        detector = Detector.load(folder, device=self._device, backbone=shared)
        self._extractors.add(detector.scorer.extractor)
        return detector

    def _forget(self, key: Key, load: asyncio.Task[Any] | None) -> None:
        if self._loads.get(key) is load:
            del self._loads[key]

    def _settle(self, category: str) -> None:
        """Let a category's active version serve if it is loaded; drop what is of no use any more."""
        active = self._active.get(category, "")
        load = self._loads.get((category, active))
        if load is not None and load.done() and not load.cancelled() and load.result() is not None:
            self._serving[category] = active
        for key, task in list(self._loads.items()):
            wanted = key[1] in (self._active.get(key[0]), self._serving.get(key[0])) or key in self._extras
            if task.done() and not wanted:
                del self._loads[key]


def expect_readable(models: Path) -> None:
    """Tell a models folder that cannot be read from an empty one, which `bundle` does not.

    Raises:
        Problem: model-loading.
    """
    try:
        next(models.iterdir(), None)
    except OSError as error:
        raise Problem("model-loading", "The models folder cannot be read.") from error
