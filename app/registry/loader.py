"""Loading of bundles in a separate thread."""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Self
from weakref import ReferenceType, WeakSet, ref

import torch

from app.errors.problems import Problem
from app.registry.calibrations import CalibrationFiles
from app.settings import Settings
from flows.fastflow.backbones.recorded import FrozenBackbone, matches_manifest
from flows.fastflow.backbones.weights import WeightsError
from flows.fastflow.bundle import bundle, models_folder
from flows.fastflow.detector import Detector, bundle_calibrator
from flows.fastflow.engines.device import DeviceError, pick_device
from flows.fastflow.engines.engine import Engine, EngineKind, pick_engine
from flows.fastflow.engines.errors import EngineError
from flows.fastflow.inference.scorer import Scorer
from flows.fastflow.inference.tile_outputs import NotNumbersError
from flows.fastflow.manifest import Precision

logger = logging.getLogger("flowgauge.loader")


class Loader:
    """Loads bundles; those with equal backbone weights, stages and input size share a backbone.

    Every load verifies all hashes and compares the golden images.

    Args:
        models: the models folder, with the backbones' weights.
        device: see `Detector.load`.
        precision, engine, cache: see `engine.pick_engine`; `engine` is the kind.
    """

    def __init__(
        self,
        models: Path,
        device: str,
        precision: Precision = "float32",
        engine: EngineKind = "torch",
        cache: Path | None = None,
    ) -> None:
        self._models = models
        self._device = device
        self._precision = precision
        self._kind: EngineKind = engine
        self._cache = cache
        self._calibrations = CalibrationFiles(models)
        # One thread, so that no backbone is built twice.
        self._loading = ThreadPoolExecutor(1, "loader")
        self._specialising = ThreadPoolExecutor(1, "specialiser")
        self._backbones: WeakSet[FrozenBackbone] = WeakSet()

    @classmethod
    def from_settings(cls, settings: Settings, *, keep_converted: bool = True) -> Self:
        """Create a loader from settings; commands beside a service do not keep converted models."""
        cache = settings.engine_cache_folder if keep_converted else None
        return cls(settings.models, settings.device, settings.precision, settings.engine, cache)

    async def load(self, folder: Path, *, uncalibrated: bool = False) -> Detector:
        """Load a bundle from .../<category>/<version>, published or not.

        With `uncalibrated`, a calibration for the engine may be missing.

        Raises:
            Problem: rejected-bundle, with the reason; model-loading if its calibration is unreadable.
        """
        try:
            load = partial(self._load, folder, uncalibrated=uncalibrated)
            return await asyncio.get_running_loop().run_in_executor(self._loading, load)
        except Problem:  # from the stored calibration
            raise
        except (bundle.BundleError, WeightsError, DeviceError, EngineError) as error:
            raise Problem(
                "rejected-bundle", f"The bundle was refused: {describe_error(error, folder, self._models)}."
            ) from error
        # Damaged files can raise anything, which must not affect other models.
        except Exception as error:
            logger.exception("loading %s failed", folder)
            raise Problem(
                "rejected-bundle",
                f"Loading the bundle ended with {type(error).__name__}; the server's log has more.",
            ) from error

    def close(self) -> None:
        """Finish a running load, and end the threads."""
        self._specialising.shutdown(wait=False, cancel_futures=True)
        self._loading.shutdown(cancel_futures=True)
        self._specialising.shutdown()

    @cached_property
    def device(self) -> torch.device:
        """The device of all models; raises DeviceError if it is missing."""
        return pick_device(self._device)

    @cached_property
    def engine(self) -> Engine:
        """The engine of all models, which share its compiled graphs; raises EngineError."""
        return pick_engine(self._precision, self.device, self._kind, self._cache)

    def read(self, folder: Path, *, uncalibrated: bool = False) -> Detector:
        """Load a bundle in this thread, for commands; see `load`.

        Raises:
            BundleError, WeightsError, DeviceError, EngineError: a server would refuse the bundle.
            Problem: its calibrations are unreadable.
        """
        models_folder.require_fetched(self._models, folder)
        manifest = bundle.read_manifest(folder)
        fallback = self._calibrations.fallback(folder, self._precision)
        if fallback is None and uncalibrated:  # it takes no decision
            fallback = bundle_calibrator(manifest, bundle.manifest_sha256(folder, manifest), "float32")
        detector = Detector.load(
            folder,
            device=self._device,
            backbone=next((known for known in self._backbones if matches_manifest(known, manifest)), None),
            backbones=self._models / models_folder.BACKBONES,
            engine=self.engine,
            fallback=fallback,
        )
        self._backbones.add(detector.scorer.extractor)
        return detector

    def _load(self, folder: Path, *, uncalibrated: bool) -> Detector:
        detector = self.read(folder, uncalibrated=uncalibrated)
        detector.scorer.free_training_head()
        try:
            # Compile here, so that the first batches do not wait.
            detector.scorer.warm_up()
        except NotNumbersError as error:
            raise bundle.BundleError(f"{error}; it will not be served") from error
        # The model serves meanwhile.
        with suppress(RuntimeError):  # the loader is closed
            self._specialising.submit(_specialise, ref(detector.scorer), folder)
        return detector


def describe_error(error: Exception, folder: Path, models: Path) -> str:
    """Describe an error of a bundle without paths of this machine."""
    text = str(error)
    for path, name in ((folder, "the bundle"), (models, "the models folder")):
        for form in (str(path.resolve()), str(path.absolute()), str(path)):
            text = text.replace(f"{form}/", "").replace(form, name)
    return " ".join(text.split())


def _specialise(scorer: ReferenceType[Scorer], folder: Path) -> None:
    if (loaded := scorer()) is not None:
        try:
            loaded.specialise()
        except Exception:  # OpenVINO raises many kinds
            logger.exception("%s/%s keeps its shared graphs", folder.parent.name, folder.name)
