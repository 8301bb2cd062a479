"""The models in memory, and which of them go when there are too many."""

import asyncio
import logging
import time
from dataclasses import dataclass

from app.loader import Resident
from app.problems import ProblemName

logger = logging.getLogger("flowgauge.memory")

Key = tuple[str, str]  # category, version


@dataclass(frozen=True)
class Refusal:
    """A version that could not be loaded.

    Attributes:
        reason: why: a sentence for an administrator.
        problem: see `Refused`.
        uncalibrated: likewise.
    """

    reason: str
    problem: ProblemName = "rejected-bundle"
    uncalibrated: bool = False


@dataclass(frozen=True)
class Loaded:
    """A version in memory.

    Attributes:
        category: its category.
        version: its name.
        nbytes: of its head; the backbone is shared, and not counted.
    """

    category: str
    version: str
    nbytes: int


Load = asyncio.Task[Resident | Refusal]


class Memory:
    """Loads, those that run and those that are done, under a budget for what they have brought.

    Changed in the event loop alone; any thread may read `nbytes` and `loaded`.

    Args:
        budget: bytes of heads and backbones.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._loads: dict[Key, Load] = {}
        self._asked: dict[Key, float] = {}  # time.monotonic(); what was never asked for is not in here

    def get(self, key: Key) -> Load | None:
        """The load of a version, if there is one."""
        return self._loads.get(key)

    def put(self, key: Key, load: Load) -> None:
        """Keep a load."""
        self._loads[key] = load

    def drop(self, key: Key) -> None:
        """Let a version go; who has it already may keep it."""
        self._loads.pop(key, None)
        self._asked.pop(key, None)

    def touch(self, key: Key) -> None:
        """Note that somebody wants a version now."""
        self._asked[key] = time.monotonic()

    def arrived(self, key: Key) -> None:
        """Note that a version is loaded: who has waited for it wanted it until now."""
        if key in self._asked:
            self.touch(key)

    def versions(self, category: str) -> list[str]:
        """The versions of a category that are loaded, refused or being loaded."""
        return [key[1] for key in self._loads if key[0] == category]

    def longest_unused(self, category: str) -> list[Key]:
        """The versions of a category that are loaded, the one first that nobody has wanted for longest."""
        own = [key for key in self._residents() if key[0] == category]
        return sorted(own, key=lambda key: self._asked.get(key, 0.0))

    def result(self, key: Key) -> Resident | Refusal | None:
        """What has come of a load; None while it runs, or if there is none."""
        load = self._loads.get(key)
        return load.result() if load is not None and load.done() and not load.cancelled() else None

    def shrink(self) -> None:
        """Drop what was unused for longest, until the budget is kept or one is left.

        What was never asked for goes first, the last that came of it before the others: preloading displaces
        nothing.
        """
        while self.nbytes > self.budget and len(residents := self._residents()) > 1:
            oldest = min(reversed(residents), key=lambda key: self._asked.get(key, 0.0))
            logger.info("unloaded %s/%s to keep to FLOWGAUGE_MODEL_BYTES=%d", *oldest, self.budget)
            self.drop(oldest)

    def loaded(self) -> list[Loaded]:
        """What is in memory."""
        return [Loaded(*key, resident.nbytes) for key, resident in self._residents().items()]

    @property
    def nbytes(self) -> int:
        """Bytes of heads, and of the backbones that they share."""
        residents = self._residents().values()
        scorers = (resident.detector.scorer for resident in residents)
        backbones = {scorer.extractor: scorer.backbone_nbytes for scorer in scorers}
        return sum(r.nbytes for r in residents) + sum(backbones.values())

    def _residents(self) -> dict[Key, Resident]:
        """In the order in which their loads began."""
        results = {key: self.result(key) for key in list(self._loads)}
        return {key: result for key, result in results.items() if isinstance(result, Resident)}
