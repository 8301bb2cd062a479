"""Cache of loaded models with a budget of bytes."""

import logging
from collections import OrderedDict

from flows.fastflow.detector import Detector

logger = logging.getLogger("flowgauge.memory")

ModelKey = tuple[str, str]  # category, version


class ModelCache:
    """Loaded models; beyond the budget for heads and backbones, the least recently used ones are dropped.

    A single model may exceed the budget. Change it in the event loop only; any thread may read the sizes.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._models: OrderedDict[ModelKey, Detector] = OrderedDict()  # the least recently used first

    def get(self, key: ModelKey) -> Detector | None:
        """Return a model and mark it as used; None if it is not loaded."""
        if key in self._models:
            self._models.move_to_end(key)
        return self._models.get(key)

    def put(self, key: ModelKey, detector: Detector) -> None:
        """Add a model, and drop others until the budget holds."""
        self._models[key] = detector
        self._models.move_to_end(key)
        while self.nbytes > self._budget and len(self._models) > 1:
            oldest, _ = self._models.popitem(last=False)
            logger.info("unloaded %s/%s because of FLOWGAUGE_MODEL_BYTES=%d", *oldest, self._budget)

    def drop(self, key: ModelKey) -> None:
        """Remove a model, which running requests keep."""
        self._models.pop(key, None)

    def nbytes_by_model(self) -> dict[ModelKey, int]:
        """Return the bytes of each model's head, without the shared backbone."""
        return {key: detector.nbytes for key, detector in list(self._models.items())}

    @property
    def nbytes(self) -> int:
        """Bytes of all heads and of their shared backbones."""
        detectors = list(self._models.values())
        backbones = {detector.scorer.extractor: detector.scorer.backbone_nbytes for detector in detectors}
        return sum(detector.nbytes for detector in detectors) + sum(backbones.values())
