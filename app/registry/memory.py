"""The models in memory, under a budget of bytes."""

import logging
from collections import OrderedDict

from flows.fastflow.detector import Detector

logger = logging.getLogger("flowgauge.memory")

Key = tuple[str, str]  # category, version


class Memory:
    """Loaded models; beyond a budget of bytes, heads and backbones, the least recently used ones go.

    One model may be larger. Changed in the event loop alone; any thread may read `nbytes` and `loaded`.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._models: OrderedDict[Key, Detector] = OrderedDict()  # the least recently used first

    def get(self, key: Key) -> Detector | None:
        """Return a model to use it now, None if it is not loaded."""
        if key in self._models:
            self._models.move_to_end(key)
        return self._models.get(key)

    def put(self, key: Key, detector: Detector) -> None:
        """Keep a model, and drop others until the budget is kept."""
        self._models[key] = detector
        self._models.move_to_end(key)
        while self.nbytes > self._budget and len(self._models) > 1:
            oldest, _ = self._models.popitem(last=False)
            logger.info("unloaded %s/%s to keep to FLOWGAUGE_MODEL_BYTES=%d", *oldest, self._budget)

    def drop(self, key: Key) -> bool:
        """Remove a model; requests that have it may keep it. Returns whether it was there."""
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
