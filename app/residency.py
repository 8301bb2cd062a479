"""Which models are in memory: loaded when first asked for; beyond a budget, those unused for longest go."""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.catalogue import Catalogue, expect_readable
from app.loader import Lane, Loader, Refused, Resident
from app.memory import Key, Load, Loaded, Memory, Refusal
from app.problems import Problem
from flows.fastflow import models_folder
from flows.fastflow.detector import Detector

logger = logging.getLogger("flowgauge.residency")

# For so long a bundle that could not be loaded is not tried again, so that requests for it cost
# nothing; one that is repaired need not wait for a restart.
REFUSAL_SECONDS = 10.0
_LONGEST_PAUSE = 300.0
# Of the versions of a category that are asked for by name.
_NAMED_AT_ONCE = 2
_NAMED_KEPT = 4


class Residency:
    """The loaded models of a models folder. Used in the event loop, but for what says otherwise.

    Every request reads which version is active, so a newly published one is served without a
    restart: until it is loaded, and if it is refused, the one before it goes on serving, also after a
    restart. Requests wait for a load only where nothing good serves yet, and all for the same one.

    Loaded are the active versions, those that serve in their place, and those asked for by name. Once they
    need more than the budget, the ones unused for longest go, whatever they are, and are loaded again when
    they are asked for. Of a category a few are kept that were asked for by name, and a few are loaded at a
    time. A model that a request has been given stays until that request is done. One model may be larger than
    the budget, and one more than fits is in memory while it is loaded.

    Args:
        models: the models folder.
        loader: of that folder, for this residency alone; closed with it.
        model_bytes: the budget, heads and backbones together.
        serves: told of each version that serves from now on: category, version, its manifest's sha256, and
            the version before it.

    Attributes:
        loads: models loaded so far.
        refusals: attempts to load one that failed.
    """

    def __init__(
        self,
        models: Path,
        loader: Loader,
        model_bytes: int,
        serves: Callable[[str, str, str, str | None], None] | None = None,
    ) -> None:
        self._models = models
        self._serves = serves
        self._catalogue = Catalogue(models)
        self._loader = loader
        self._memory = Memory(model_bytes)
        self._named: set[Key] = set()  # asked for by name, not because it is active
        self._active: dict[str, str] = {}
        # The version that was active last and could be loaded, or the one before one that could not.
        self._serving: dict[str, str] = {}
        self._complaints: dict[Key, str] = {}
        self._gone: set[Key] = set()  # loaded and active, and not in the models folder any more
        self._missing: set[str] | None = set()
        self.loads = self.refusals = 0

    async def get(self, category: str, version: str | None = None) -> Detector:
        """Give a model, loading it first if need be.

        Args:
            category: the category.
            version: a version, or None for the one that is active now; as long as that is not loaded, the
                last one that was active and good.

        Raises:
            Problem: unknown-model; rejected-bundle; model-loading, when the models folder cannot be
                read, or the calibration that a model needs.
        """
        return await self._obtain(category, version, asked=True)

    async def load(self, category: str, version: str) -> Detector:
        """Load a version that is to become active. One that is in memory already is verified again.

        Raises:
            Problem: unknown-model; rejected-bundle, with the reason; model-loading, as `get`.
        """
        key = category, await self._catalogue.find(category, version)
        known = self._memory.result(key)
        if isinstance(known, Refusal):
            self._memory.drop(key)  # it may have been repaired
        elif known is not None:
            await self._expect_unchanged(key, known.detector)
        if self._active.get(category) != version:
            self._named.add(key)
        result = await self._use(key)
        if isinstance(result, Refusal):
            raise Problem(result.problem, result.reason)
        return result.detector

    async def check(self, folder: Path) -> str:
        """Load a bundle that is complete but not in its place, and let it go again; its manifest's sha256.

        Args:
            folder: .../<category>/<version>.

        Raises:
            Problem: rejected-bundle, with the reason, unless that is a calibration for this server's
                precision, which can be made later; model-loading, if the one that was made cannot be read.
        """
        try:
            return await self._loader.check(folder)
        except Refused as error:
            raise Problem(error.problem, str(error)) from error

    def serving(self, category: str) -> str | None:
        """The version that answers for a category, None before the first. Any thread may ask."""
        return self._serving.get(category)

    def refusal(self, category: str, version: str | None) -> str | None:
        """Why a version was refused when it was last loaded; None if it was not. Any thread may ask."""
        return self._complaints.get((category, version or ""))

    def unload(self, category: str, version: str) -> bool:
        """Drop a version from memory; whether it was there.

        What is being inspected is finished, and what is asked for again is loaded again.
        """
        if version not in self._memory.versions(category):
            return False
        was_refused = isinstance(self._memory.result((category, version)), Refusal)
        self._memory.drop((category, version))
        return not was_refused

    def loaded(self) -> list[Loaded]:
        """What is in memory. Any thread may ask."""
        return self._memory.loaded()

    @property
    def nbytes(self) -> int:
        """Bytes of all that is in memory, heads and backbones. Any thread may ask."""
        return self._memory.nbytes

    async def preload(self) -> None:
        """Load every active model, and try those that fail again, ever less often, until none is missing.

        All are tried, but what does not fit the budget is dropped again, and nothing goes to make room for
        it.
        """
        self._missing = None
        pause = REFUSAL_SECONDS
        while True:
            try:
                if self._missing is None:
                    self._missing = await asyncio.to_thread(self._catalogue.categories)
                for category in sorted(self._missing):
                    await self._preload_one(category)
            except (OSError, Problem):
                logger.exception("the models folder %s cannot be read", self._models)
            if self._missing is not None and not self._missing:
                self._say_what_is_loaded()
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def expect_ready(self) -> None:
        """Look at the models folder, as `get` does.

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
        self._loader.close()

    async def _obtain(self, category: str, version: str | None, *, asked: bool) -> Detector:
        key = category, await self._catalogue.find(category, version)
        if version is not None:
            lane: Lane = "active" if self._active.get(category) == version else "named"
            if lane == "named":
                self._expect_few_named(key)
                self._named.add(key)
            result = await self._use(key, asked=asked, lane=lane)
        else:
            self._named.discard(key)
            if self._active.get(category) != key[1]:
                self._active[category] = key[1]
                self._settle(category)
            load = self._start(key)
            result = await self._use((category, self._serving.get(category, key[1])), asked=asked)
            if isinstance(result, Refusal):
                result = await asyncio.shield(load)
            # Not where a calibration cannot be read: nothing is decided by others than those that were set.
            damaged = isinstance(result, Refusal) and result.problem == "rejected-bundle"
            if damaged and self._serving.get(category, key[1]) == key[1]:
                self._serving.pop(category, None)  # it served, went out of memory, and cannot be loaded again
                result = await self._stand_in(key, asked=asked) or result
            if isinstance(result, Resident) and self._missing:
                self._missing.discard(category)
            self._say_if_gone(key)
        if isinstance(result, Refusal):
            if result.uncalibrated:
                raise Problem(result.problem, result.reason)
            if version is None and not self._catalogue.has(*key):
                raise Problem(
                    "rejected-bundle",
                    f"Category {category!r} cannot be inspected: its active version {key[1]!r} is not in the "
                    "models folder. Put it back, or activate another one.",
                )
            raise Problem(
                "rejected-bundle",
                f"Version {key[1]!r} of {category!r} cannot be loaded: its bundle is damaged or incomplete, "
                "or its backbone's weights are missing here. Publish it again; the server's log has more.",
            )
        return result.detector

    def _expect_few_named(self, key: Key) -> None:
        """Let nobody keep the loader busy with the versions of a category.

        Raises:
            Problem: model-loading.
        """
        of_category = [other for other in self._named - {key} if other[0] == key[0]]
        loads = [load for other in of_category if (load := self._memory.get(other)) is not None]
        if self._memory.get(key) is None and sum(not load.done() for load in loads) >= _NAMED_AT_ONCE:
            raise Problem(
                "model-loading",
                f"{_NAMED_AT_ONCE} versions of {key[0]!r} are being loaded; ask for another one after that.",
            )

    def _say_if_gone(self, active: Key) -> None:
        """Log once that a version is loaded, and cannot be loaded again."""
        gone = isinstance(self._memory.result(active), Resident) and not self._catalogue.has(*active)
        if not gone:
            self._gone.discard(active)
        elif active not in self._gone:
            self._gone.add(active)
            logger.error(
                "%s/%s is active, and not in the models folder any more; it serves until it leaves "
                "memory, at the latest with a restart",
                *active,
            )

    async def _stand_in(self, refused: Key, *, asked: bool) -> Resident | None:
        """Let the version before the active one serve, which was refused while none serves; None without."""
        category, active = refused
        previous = await asyncio.to_thread(models_folder.previous_version, self._models, category)
        if previous is None:
            return None
        key = category, previous
        self._named.add(key)  # else it would be dropped as soon as it is loaded
        result = await self._use(key, asked=asked)
        self._named.discard(key)
        if isinstance(result, Refusal):
            return None
        if category not in self._serving:
            logger.error(
                "%s/%s was refused; %s, which was active before it, serves in its place",
                category,
                active,
                previous,
            )
            self._serve(category, previous, result)
        return result

    async def _preload_one(self, category: str) -> None:
        try:
            await self._obtain(category, None, asked=False)
        except Problem as problem:
            # What has been taken away meanwhile is not waited for; a refused bundle is in the log
            # already.
            if problem.name == "unknown-model" and self._missing:
                self._missing.discard(category)

    def _say_what_is_loaded(self) -> None:
        loaded = sum(isinstance(self._memory.result(key), Resident) for key in self._serving.items())
        if loaded < len(self._serving):
            logger.warning(
                "%d of %d active models fit into FLOWGAUGE_MODEL_BYTES=%d; each of the others is loaded when "
                "it is asked for, in place of the one unused for longest",
                loaded,
                len(self._serving),
                self._memory.budget,
            )

    async def _use(self, key: Key, *, asked: bool = True, lane: Lane = "active") -> Resident | Refusal:
        load = self._start(key, lane)
        if asked:
            self._memory.touch(key)
        # Shielded: a request that is cancelled must not cancel the load that others wait for.
        return await asyncio.shield(load)

    def _start(self, key: Key, lane: Lane = "active") -> Load:
        load = self._memory.get(key)
        if load is None:
            load = asyncio.create_task(self._load(key, lane))
            self._memory.put(key, load)
            load.add_done_callback(lambda _: self._arrived(key))
        return load

    async def _load(self, key: Key, lane: Lane) -> Resident | Refusal:
        start = time.perf_counter()
        try:
            if not self._catalogue.has(*key):
                raise Refused("It is not in the models folder.")  # noqa: TRY301  (as all that is refused)
            resident = await self._loader.load(self._folder(key), lane)
        except Refused as error:
            self.refusals += 1
            self._complain(key, error)
            loop = asyncio.get_running_loop()
            loop.call_later(REFUSAL_SECONDS, self._forget, key, asyncio.current_task())
            return Refusal(str(error), error.problem, error.uncalibrated)
        self.loads += 1
        self._complaints.pop(key, None)
        logger.info("loaded %s/%s in %.2f s", *key, time.perf_counter() - start)
        return resident

    async def _expect_unchanged(self, key: Key, detector: Detector) -> None:
        try:
            sha256 = await self._loader.verify(self._folder(key))
        except Refused as error:
            raise Problem("rejected-bundle", str(error)) from error
        if sha256 != detector.sha256:
            raise Problem("rejected-bundle", "It is not the bundle that is loaded; unload that one.")

    def _folder(self, key: Key) -> Path:
        return self._models / key[0] / key[1]

    def _complain(self, key: Key, error: Refused) -> None:
        """Log why a version is refused, once: it is tried again and again."""
        if self._complaints.get(key) == str(error):
            return
        self._complaints[key] = str(error)
        serving = self._serving.get(key[0])
        rest = f"; {serving} goes on serving" if serving not in (None, key[1]) else ""
        logger.error(
            "%s/%s was refused%s. %s", *key, rest, error, exc_info=error if error.unforeseen else None
        )

    def _arrived(self, key: Key) -> None:
        self._memory.arrived(key)
        self._settle(key[0])
        self._drop_named(key)
        self._memory.shrink()

    def _drop_named(self, arrived: Key) -> None:
        """Keep a few of a category's versions that were asked for by name: others displaced other lines'."""
        category, _ = arrived
        serving = self._active.get(category), self._serving.get(category)
        named = {key for key in self._named if key[1] not in serving}
        if arrived in named and isinstance(self._memory.result(arrived), Resident):
            others = [key for key in self._memory.longest_unused(category) if key in named - {arrived}]
            for key in others[: max(0, len(others) + 1 - _NAMED_KEPT)]:
                self._memory.drop(key)

    def _settle(self, category: str) -> None:
        """Let a category's active version serve if it is loaded; drop what is of no use any more."""
        active = self._active.get(category, "")
        known = self._memory.result((category, active))
        if isinstance(known, Resident) and self._serving.get(category) != active:
            self._serve(category, active, known)
        for version in self._memory.versions(category):
            key = category, version
            wanted = version in (active, self._serving.get(category)) or key in self._named
            if self._memory.result(key) is not None and not wanted:
                self._memory.drop(key)

    def _serve(self, category: str, version: str, resident: Resident) -> None:
        before = self._serving.get(category)
        self._serving[category] = version
        if self._serves is not None:
            self._serves(category, version, resident.detector.sha256, before)

    def _forget(self, key: Key, load: asyncio.Task[Any] | None) -> None:
        if self._memory.get(key) is load:
            self._memory.drop(key)
