"""The models in memory, and the version of each category that serves."""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from app.errors.problems import Problem
from app.registry.catalogue import Catalogue, categories, require_readable
from app.registry.loader import Loader
from app.registry.memory import Key, Memory
from flows.fastflow.detector import Detector

logger = logging.getLogger("flowgauge.residency")

# A refused bundle is not tried again for so long: requests for it cost nothing, and one that is repaired
# need not wait for a restart.
REFUSAL_SECONDS = 10.0


class Residency:
    """The loaded models of a models folder. Used in the event loop; any thread may ask for what there is.

    Every request looks up the active version. Until that is loaded, and if it is refused, the version before
    it goes on serving. Requests wait for a load only where nothing serves yet, and all for the same one.

    Active versions and those asked for by name are loaded when they are needed. Beyond the budget the least
    recently used ones go. A model that a request has been given stays until that request is done.

    Args:
        models: the models folder.
        loader: of that folder, for this residency alone; closed with it.
        model_bytes: the budget, heads and backbones together.
        on_serving: called for each version that serves from now on, with the category, the version, its
            manifest's sha256, and the version before it.

    Attributes:
        loads: models loaded so far.
        refusals: attempts to load one that failed.
    """

    def __init__(
        self,
        models: Path,
        loader: Loader,
        model_bytes: int,
        on_serving: Callable[[str, str, str, str | None], None] | None = None,
    ) -> None:
        self._models = models
        self._on_serving = on_serving
        self._catalogue = Catalogue(models)
        self._loader = loader
        self._memory = Memory(model_bytes)
        self._loading: dict[Key, asyncio.Task[Detector | Problem]] = {}
        self._refused: dict[Key, tuple[Problem, float]] = {}  # why, and when by time.monotonic()
        self._active: dict[str, str] = {}
        self._serving: dict[str, str] = {}
        self._missing: set[str] | None = set()  # categories to preload; None: not known yet
        self.loads = self.refusals = 0

    async def get(self, category: str, version: str | None = None) -> Detector:
        """Return a version, by default the one that serves, loading it first if need be.

        Raises:
            Problem: unknown-model; rejected-bundle, with the reason; model-loading if the models folder or
                the calibration that a model needs cannot be read.
        """
        found = await self._catalogue.find(category, version)
        if version is not None:
            return _require_loaded(await self._use((category, found)))
        if self._active.get(category) != found:
            self._activate(category, found)
        serving = self._serving.get(category, found)
        if serving != found:
            if self._known((category, found)) is None:
                self._start((category, found))
            before = await self._use((category, serving))
            if isinstance(before, Detector):
                return before
        return _require_loaded(await self._use((category, found)))

    async def load(self, category: str, version: str) -> Detector:
        """Load a version that is to become active, from the disk even if it is in memory.

        Raises:
            Problem: as `get`.
        """
        key = category, await self._catalogue.find(category, version)
        return _require_loaded(await asyncio.shield(self._start(key)))

    def serve(self, category: str, detector: Detector) -> None:
        """Let a version that was loaded and activated serve from now on."""
        version = detector.manifest.version
        self._memory.put((category, version), detector)
        self._active[category] = version
        self._serve(category, version, detector)

    async def check(self, folder: Path) -> str:
        """Load a bundle that is not in its place yet, and let it go again; returns its manifest's sha256.

        Raises:
            Problem: as `Loader.load`. A calibration for this server's precision may be made later.
        """
        return (await self._loader.load(folder, uncalibrated=True)).sha256

    def serving(self, category: str) -> str | None:
        """Return the version that serves, None before the first."""
        return self._serving.get(category)

    def refusal(self, category: str, version: str | None) -> str | None:
        """Return why a version was refused when it was last loaded, if it was."""
        refusal = self._refused.get((category, version or ""))
        return None if refusal is None else refusal[0].detail

    def unload(self, category: str, version: str) -> bool:
        """Drop a version from memory; returns whether it was there. It is loaded again when asked for."""
        return self._memory.drop((category, version))

    def loaded(self) -> dict[Key, int]:
        """Return the bytes of each model in memory."""
        return self._memory.loaded()

    @property
    def nbytes(self) -> int:
        """Bytes of all that is in memory, heads and backbones."""
        return self._memory.nbytes

    async def preload(self) -> None:
        """Load every active model, and try those that fail again until none is missing."""
        self._missing = None
        while True:
            try:
                if self._missing is None:
                    self._missing = set(await asyncio.to_thread(categories, self._models))
                for category in sorted(self._missing):
                    await self._preload(category)
            except (OSError, Problem):
                logger.exception("the models folder %s cannot be read", self._models)
            if self._missing is not None and not self._missing:
                return
            await asyncio.sleep(REFUSAL_SECONDS)

    def expect_ready(self) -> None:
        """Raise the problem model-loading if the models folder is gone or a model to preload is missing."""
        require_readable(self._models)
        if self._missing is None:
            raise Problem("model-loading", "The active models are not known yet.")
        if self._missing:
            raise Problem("model-loading", f"Active models that are not loaded: {len(self._missing)}.")

    def close(self) -> None:
        """Let a load that runs finish, and end the loader's thread."""
        self._loader.close()

    async def _preload(self, category: str) -> None:
        try:
            await self.get(category)
        except Problem as problem:
            # A category that has no active version is not waited for. A refused bundle is in the log.
            if problem.name == "unknown-model" and self._missing:
                self._missing.discard(category)

    def _activate(self, category: str, version: str) -> None:
        """Follow the file `active`: let a version serve as soon as it is loaded."""
        before = self._active.get(category)
        self._active[category] = version
        if before is not None and before != self._serving.get(category):
            self._memory.drop((category, before))  # it never served, and is not wanted any more
        if (detector := self._memory.get((category, version))) is not None:
            self._serve(category, version, detector)

    async def _use(self, key: Key) -> Detector | Problem:
        known = self._known(key)
        # Shielded: a request that is cancelled must not cancel the load that others wait for.
        return await asyncio.shield(self._start(key)) if known is None else known

    def _known(self, key: Key) -> Detector | Problem | None:
        if (detector := self._memory.get(key)) is not None:
            return detector
        refusal = self._refused.get(key)
        if refusal is not None and time.monotonic() - refusal[1] < REFUSAL_SECONDS:
            return refusal[0]
        return None

    def _start(self, key: Key) -> asyncio.Task[Detector | Problem]:
        load = self._loading.get(key)
        if load is None:
            load = self._loading[key] = asyncio.create_task(self._load(key))
            load.add_done_callback(lambda _: self._loading.pop(key))
        return load

    async def _load(self, key: Key) -> Detector | Problem:
        start = time.perf_counter()
        category, version = key
        try:
            detector = await self._loader.load(self._models / category / version)
        except Problem as problem:
            self._refuse(key, problem)
            return problem
        self.loads += 1
        self._refused.pop(key, None)
        logger.info("loaded %s/%s in %.2f s", *key, time.perf_counter() - start)
        self._memory.put(key, detector)
        if self._active.get(category) == version:
            self._serve(category, version, detector)
        return detector

    def _refuse(self, key: Key, problem: Problem) -> None:
        self.refusals += 1
        before = self._refused.get(key)
        self._refused[key] = problem, time.monotonic()
        if before is not None and before[0].detail == problem.detail:
            return  # it is tried again and again, and logged once
        serving = self._serving.get(key[0])
        rest = f"; {serving} goes on serving" if serving not in (None, key[1]) else ""
        logger.error("%s/%s was refused%s. %s", *key, rest, problem.detail)

    def _serve(self, category: str, version: str, detector: Detector) -> None:
        if self._missing:
            self._missing.discard(category)
        before = self._serving.get(category)
        if before == version:
            return
        self._serving[category] = version
        if before is not None:
            self._memory.drop((category, before))
        if self._on_serving is not None:
            self._on_serving(category, version, detector.sha256, before)


def _require_loaded(result: Detector | Problem) -> Detector:
    if isinstance(result, Problem):
        raise Problem(result.name, result.detail)  # a new one: each raise adds a traceback
    return result
