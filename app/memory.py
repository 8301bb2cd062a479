"""The models in memory, under a budget of bytes."""

import logging
import time

from flows.fastflow.detector import Detector

logger = logging.getLogger("flowgauge.memory")

Key = tuple[str, str]  # category, version


class Memory:
    """Loaded models; beyond a budget of bytes, heads and backbones, the least recently used ones go.

    Changed in the event loop alone; any thread may read `nbytes` and `loaded`.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._models: dict[Key, Detector] = {}
        self._used: dict[Key, float] = {}  # time.monotonic(); absent: preloaded, never asked for

    def get(self, key: Key) -> Detector | None:
        """Return a model, None if it is not loaded."""
        return self._models.get(key)

    def put(self, key: Key, detector: Detector) -> None:
        """Keep a model, and drop others until the budget is kept."""
        self._models[key] = detector
        if key in self._used:
            self.touch(key)  # those who waited for the load used it until now
        self._shrink()

    def touch(self, key: Key) -> None:
        """Record that a model is used now, even if it is still loading."""
        self._used[key] = time.monotonic()

    def drop(self, key: Key) -> bool:
        """Remove a model; requests that have it may keep it. Returns whether it was there."""
        self._used.pop(key, None)
        return self._models.pop(key, None) is not None

    def loaded(self) -> dict[Key, int]:
        """Return the bytes of each model's head; the backbone is shared, and not counted."""
        return {key: detector.nbytes for key, detector in list(self._models.items())}

    @property
    def nbytes(self) -> int:
        """Bytes of the heads, and of the backbones that they share."""
        detectors = list(self._models.values())
        backbones = {one.scorer.extractor: one.scorer.backbone_nbytes for one in detectors}
        return sum(one.nbytes for one in detectors) + sum(backbones.values())

    def _shrink(self) -> None:
        # Models that nobody asked for go first, the latest of them before the others: preloading displaces
        # nothing.
        while self.nbytes > self._budget and len(self._models) > 1:
            oldest = min(reversed(self._models), key=lambda key: self._used.get(key, 0.0))
            logger.info("unloaded %s/%s to keep to FLOWGAUGE_MODEL_BYTES=%d", *oldest, self._budget)
            self.drop(oldest)
