"""Loading models, in a thread of its own, and saying why one is refused."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from weakref import WeakSet

from flows.fastflow import bundle
from flows.fastflow.backbones import WeightsError
from flows.fastflow.detector import Detector, DeviceError, fits
from flows.fastflow.features import FeatureExtractor

T = TypeVar("T")


@dataclass(frozen=True)
class Resident:
    """A loaded model.

    Attributes:
        detector: the model.
        nbytes: of its head, in memory.
        since: time.monotonic() when it was loaded.
    """

    detector: Detector
    nbytes: int
    since: float


class Refused(Exception):  # noqa: N818
    """A bundle that cannot be loaded. The message says why, in words that may leave this machine."""


class Loader:
    """Loads bundles. Those with the same backbone weights and stages get one feature extractor.

    Every load verifies all hashes. Golden pictures are replayed once for each manifest: what has its sha256
    is the same model to the last bit, and has reproduced its scores on this very device.

    Args:
        models: the models folder, with the backbones' weights.
        device: as for `Detector.load`.
    """

    def __init__(self, models: Path, device: str) -> None:
        self._models = models
        self._device = device
        # One thread: two categories never build the same backbone twice.
        self._thread = ThreadPoolExecutor(1, "loader")
        self._extractors: WeakSet[FeatureExtractor] = WeakSet()
        self._replayed: set[str] = set()

    async def load(self, folder: Path) -> Resident:
        """Load a bundle, which may be complete but not in its place yet.

        Args:
            folder: .../<category>/<version>.

        Raises:
            Refused: it cannot be loaded, for whatever reason.
        """
        return await self._try(self._load, folder)

    async def verify(self, folder: Path) -> str:
        """Verify a bundle's files without loading it; gives its manifest's sha256.

        Raises:
            Refused: a file was changed, is missing or cannot be read.
        """
        return await self._try(_verify, folder)

    async def _try(self, function: Callable[[Path], T], folder: Path) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, function, folder)
        # Reading a damaged file can fail in any way; none of them may reach the other models.
        except Exception as error:
            raise Refused(self._reason(folder, error)) from error

    def _reason(self, folder: Path, error: Exception) -> str:
        if not isinstance(error, bundle.BundleError | WeightsError | DeviceError):
            return f"Loading the bundle ended with {type(error).__name__}; the server's log has more."
        text = str(error)
        for path, name in ((folder, "the bundle"), (self._models, "the models folder")):
            for form in (str(path.resolve()), str(path.absolute()), str(path)):
                text = text.replace(f"{form}/", "").replace(form, name)
        return f"The bundle was refused: {' '.join(text.split())}."

    def close(self) -> None:
        """Let a load that runs finish, and end the thread."""
        self._thread.shutdown(cancel_futures=True)

    def _load(self, folder: Path) -> Resident:
        manifest = bundle.read_manifest(folder)
        detector = Detector.load(
            folder,
            device=self._device,
            backbone=next((e for e in self._extractors if fits(e, manifest)), None),
            backbones=self._models / bundle.BACKBONES,
            replayed=self._replayed,
        )
        self._extractors.add(detector.scorer.extractor)
        self._replayed.add(detector.sha256)
        return Resident(detector, detector.nbytes, time.monotonic())


def _verify(folder: Path) -> str:
    return bundle.manifest_sha256(folder, bundle.verify(folder))
