"""A gate before the backbone, so that a test controls when images are computed."""

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import Tensor

from flows.fastflow.inference.scorer import Scorer

Pixels = NDArray[np.uint8]


class BackboneGate:
    """Blocks passes of the backbone until a test lets them through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered = threading.Semaphore(0)
        self._permits = threading.Semaphore(0)
        self._open = False
        features = Scorer.features

        def gated(scorer: Scorer, batch: Sequence[Pixels]) -> list[Tensor]:
            self.entered.release()
            assert self._open or self._permits.acquire(timeout=30)
            return features(scorer, batch)

        monkeypatch.setattr(Scorer, "features", gated)

    async def wait_until_entered(self) -> None:
        assert await asyncio.to_thread(self.entered.acquire, timeout=30)

    def let_one_through(self) -> None:
        self._permits.release()

    def open(self) -> None:
        self._open = True
        self._permits.release()
