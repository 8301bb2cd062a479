"""Models as the server of this machine loads them, for commands beside it."""

from pathlib import Path

from app.calibrations import CalibrationFiles
from app.settings import Settings
from flows.fastflow.detector import Detector, pick_device
from flows.fastflow.engines import pick_engine
from flows.fastflow.recorded_backbone import FrozenBackbone


class AsServed:
    """Loads versions by the engine that a server would have here, with what it calibrated later.

    FLOWGAUGE_PRECISION, FLOWGAUGE_ENGINE and FLOWGAUGE_DEVICE say which, as they do to the server. A version
    that does well in float32 may be refused in another precision.

    Attributes:
        device: where they compute.
        engine: what computes.

    Args:
        settings: of the server.

    Raises:
        DeviceError, EngineError: a server would not start.
    """

    def __init__(self, settings: Settings) -> None:
        self.device = pick_device(settings.device)
        self.engine = pick_engine(settings.precision, self.device, settings.engine)
        self._calibrations = CalibrationFiles(settings.models)
        self._backbone: FrozenBackbone | None = None

    def load(self, folder: Path) -> Detector:
        """Load a version; those in turn share a backbone.

        Raises:
            BundleError, WeightsError, EngineError: a server would refuse it.
            Problem: its calibrations cannot be read.
        """
        detector = Detector.load(
            folder,
            device=str(self.device),
            backbone=self._backbone,
            engine=self.engine,
            fallback=self._calibrations.fallback(folder, self.engine.precision),
        )
        self._backbone = detector.scorer.extractor
        return detector
