"""The models in memory, and the version of each category that serves."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from app.errors.problems import Problem
from app.registry.catalogue import Catalogue, list_categories, require_readable
from app.registry.loader import Loader
from app.registry.model_cache import ModelCache, ModelKey
from app.registry.model_files import ModelFiles
from flows.fastflow.detector import Detector

logger = logging.getLogger("flowgauge.loaded_models")

# A refused bundle is loaded again after this time. Until then requests for it are cheap, and a repaired
# bundle needs no restart.
REFUSAL_SECONDS = 10.0


class LoadedModels:
    """The loaded models of a models folder. Use it in the event loop; other threads may only read.

    Every request looks up the active version. While that version loads, and if it is refused, the previous
    version serves. Requests wait for a load only if nothing serves yet, and all wait for the same load.

    Models are loaded on demand. Beyond the budget the least recently used ones are dropped. A request keeps
    its model until it is done.

    Args:
        files: the models folder.
        loader: loader of that folder, owned and closed by this object.
        model_bytes: budget for heads and backbones together.
        on_serving: called when a version begins to serve, with the category, the version, its manifest's
            SHA-256 and the previous version.
    """

    def __init__(
        self,
        files: ModelFiles,
        loader: Loader,
        model_bytes: int,
        on_serving: Callable[[str, str, str, str | None], None] | None = None,
    ) -> None:
        self._models = files.models
        self._fetch = files.fetch
        self._on_serving = on_serving
        self._catalogue = Catalogue(files.models)
        self._loader = loader
        self._cache = ModelCache(model_bytes)
        self._loading: dict[ModelKey, asyncio.Task[Detector | Problem]] = {}
        self._refused: dict[ModelKey, tuple[Problem, float]] = {}  # reason, and time.monotonic()
        self._active: dict[str, str] = {}
        self._serving: dict[str, str] = {}
        self._missing: set[str] | None = set()  # categories to preload; None: not known yet
        self.loads = self.refusals = 0

    async def get(self, category: str, version: str | None = None) -> Detector:
        """Return a version, by default the serving one; load it if necessary.

        Raises:
            Problem: unknown-model; rejected-bundle, with the reason; model-loading if the models folder or
                a needed calibration cannot be read.
        """
        found = await self._catalogue.find(category, version)
        if version is not None:
            return _require_loaded(await self._get_or_load((category, found)))
        if self._active.get(category) != found:
            self._follow_pointer(category, found)
        serving = self._serving.get(category, found)
        if serving != found:
            if self._cached((category, found)) is None:
                self._start_loading((category, found))
            before = await self._get_or_load((category, serving))
            if isinstance(before, Detector):
                return before
        return _require_loaded(await self._get_or_load((category, found)))

    async def load(self, category: str, version: str) -> Detector:
        """Load a version before its activation, from disk even if it is in memory.

        Raises:
            Problem: as `get`.
        """
        key = category, await self._catalogue.find(category, version)
        return _require_loaded(await asyncio.shield(self._start_loading(key)))

    def serve(self, category: str, detector: Detector) -> None:
        """Let a loaded and activated version serve from now on."""
        version = detector.manifest.version
        self._cache.put((category, version), detector)
        self._active[category] = version
        self._serve(category, version, detector)

    async def try_load(self, folder: Path) -> str:
        """Load and drop an unpublished bundle; return its manifest's SHA-256.

        The bundle may lack a calibration for this server's precision.

        Raises:
            Problem: as `Loader.load`.
        """
        return (await self._loader.load(folder, uncalibrated=True)).sha256

    def serving_version(self, category: str) -> str | None:
        """Return the serving version; None before the first."""
        return self._serving.get(category)

    def refusal(self, category: str, version: str | None) -> str | None:
        """Return the reason if the last load of a version was refused."""
        refusal = self._refused.get((category, version or ""))
        return None if refusal is None else refusal[0].detail

    def drop(self, category: str, version: str) -> None:
        """Drop a version from memory until the next request for it."""
        self._cache.drop((category, version))

    def in_use(self) -> set[ModelKey]:
        """Return the versions that are in memory, load or serve. May be called in any thread."""
        return {*self._cache.nbytes_by_model(), *list(self._loading), *list(self._serving.items())}

    def follow_soon(self, loop: asyncio.AbstractEventLoop, category: str, *, preload: bool) -> None:
        """Follow a change of a category that another server may have made. Call it in any thread.

        Args:
            preload: load the active version also if nothing of the category serves.
        """
        asyncio.run_coroutine_threadsafe(self._follow(category, preload=preload), loop)

    async def _follow(self, category: str, *, preload: bool) -> None:
        serving = self._serving.get(category)
        for name, version in self.model_sizes():
            if name == category and version != serving and not self._catalogue.has(category, version):
                self.drop(category, version)
        with suppress(Problem):  # which is in the log
            active = self._catalogue.active_version(category)
            if active not in (None, self._active.get(category)) and (preload or serving is not None):
                await self.get(category)

    def model_sizes(self) -> dict[ModelKey, int]:
        return self._cache.nbytes_by_model()

    @property
    def nbytes(self) -> int:
        """Bytes of all heads and backbones in memory."""
        return self._cache.nbytes

    async def preload(self) -> None:
        """Load every active model; retry failed ones until none is missing."""
        self._missing = None
        while True:
            try:
                if self._missing is None:
                    self._missing = set(await asyncio.to_thread(list_categories, self._models))
                for category in sorted(self._missing):
                    await self._preload(category)
            except (OSError, Problem):
                logger.exception("the models folder %s cannot be read", self._models)
            if self._missing is not None and not self._missing:
                return
            await asyncio.sleep(REFUSAL_SECONDS)

    def require_ready(self) -> None:
        """Raise the problem model-loading if the models folder is gone or a model to preload is missing."""
        require_readable(self._models)
        if self._missing is None:
            raise Problem("model-loading", "The models folder has not been read yet.")
        if self._missing:
            raise Problem("model-loading", f"Active models that are not loaded: {len(self._missing)}.")

    def close(self) -> None:
        """Finish a running load and end the loader's thread."""
        self._loader.close()

    async def _preload(self, category: str) -> None:
        try:
            await self.get(category)
        except Problem as problem:
            # Do not wait for a category without an active version. Refused bundles are in the log.
            if problem.name == "unknown-model" and self._missing:
                self._missing.discard(category)

    def _follow_pointer(self, category: str, version: str) -> None:
        """Follow a change of the file `active`: let the version serve as soon as it is loaded."""
        before = self._active.get(category)
        self._active[category] = version
        if before is not None and before != self._serving.get(category):
            self._cache.drop((category, before))  # superseded before it served
        if (detector := self._cache.get((category, version))) is not None:
            self._serve(category, version, detector)

    async def _get_or_load(self, key: ModelKey) -> Detector | Problem:
        known = self._cached(key)
        # Shielded: a cancelled request must not cancel the load that others wait for.
        return await asyncio.shield(self._start_loading(key)) if known is None else known

    def _cached(self, key: ModelKey) -> Detector | Problem | None:
        if (detector := self._cache.get(key)) is not None:
            return detector
        refusal = self._refused.get(key)
        if refusal is not None and time.monotonic() - refusal[1] < REFUSAL_SECONDS:
            return refusal[0]
        return None

    def _start_loading(self, key: ModelKey) -> asyncio.Task[Detector | Problem]:
        load = self._loading.get(key)
        if load is None:
            load = self._loading[key] = asyncio.create_task(self._load(key))
            load.add_done_callback(lambda _: self._loading.pop(key))
        return load

    async def _load(self, key: ModelKey) -> Detector | Problem:
        start = time.perf_counter()
        category, version = key
        try:
            folder = self._models / category / version
            await asyncio.to_thread(self._fetch, folder)
            detector = await self._loader.load(folder)
        except Problem as problem:
            self._refuse(key, problem)
            return problem
        self.loads += 1
        self._refused.pop(key, None)
        logger.info("loaded %s/%s in %.2f s", *key, time.perf_counter() - start)
        self._cache.put(key, detector)
        if self._active.get(category) == version:
            self._serve(category, version, detector)
        return detector

    def _refuse(self, key: ModelKey, problem: Problem) -> None:
        self.refusals += 1
        before = self._refused.get(key)
        self._refused[key] = problem, time.monotonic()
        if before is not None and before[0].detail == problem.detail:
            return  # retried often, logged once
        serving = self._serving.get(key[0])
        rest = f"; {serving} continues to serve" if serving not in (None, key[1]) else ""
        logger.error("%s/%s was refused%s. %s", *key, rest, problem.detail)

    def _serve(self, category: str, version: str, detector: Detector) -> None:
        if self._missing:
            self._missing.discard(category)
        before = self._serving.get(category)
        if before == version:
            return
        self._serving[category] = version
        if before is not None:
            self._cache.drop((category, before))
        if self._on_serving is not None:
            self._on_serving(category, version, detector.sha256, before)


def _require_loaded(result: Detector | Problem) -> Detector:
    if isinstance(result, Problem):
        raise Problem(result.name, result.detail)  # a new one, because each raise adds a traceback
    return result
