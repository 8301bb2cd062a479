"""Models as the server of this machine loads them, for commands beside it."""

from pathlib import Path

from app.calibrations import CalibrationFiles
from app.settings import settings_from
from flows.fastflow.detector import Detector, pick_device
from flows.fastflow.engines import pick_engine
from flows.fastflow.recorded_backbone import FrozenBackbone


class AsServed:
    """Loads versions by the engine that a server would have here, with what it calibrated later.

    FLOWGAUGE_PRECISION, FLOWGAUGE_ENGINE and FLOWGAUGE_DEVICE say which, as they do to the server. A version
    that does well in float32 may be refused in another precision.

    Args:
        models: the models folder.
        device: in place of FLOWGAUGE_DEVICE, where it is given.

    Raises:
        SettingsError, DeviceError, EngineError: a server would not start.
    """

    def __init__(self, models: Path, device: str | None = None) -> None:
        settings = settings_from(models=models, **({} if device is None else {"device": device}))
        self._device = settings.device
        self._calibrations = CalibrationFiles(models)
        self._backbone: FrozenBackbone | None = None
        self.engine = pick_engine(settings.precision, pick_device(settings.device), settings.engine)

    def load(self, folder: Path) -> Detector:
        """Load a version; those in turn share a backbone.

        Raises:
            BundleError, WeightsError, EngineError: a server would refuse it.
            Problem: its calibrations cannot be read.
        """
        detector = Detector.load(
            folder,
            device=self._device,
            backbone=self._backbone,
            engine=self.engine,
            calibrator=self._calibrations.instead(folder, self.engine.precision),
        )
        self._backbone = detector.scorer.extractor
        return detector
