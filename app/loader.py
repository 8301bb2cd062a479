"""Loading models, in a thread of its own, and saying why one is refused."""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, Self, TypeVar
from weakref import ReferenceType, WeakKeyDictionary, WeakSet, ref

from app.calibrations import CalibrationFiles
from app.problems import Problem, ProblemName
from app.renewals import Slot
from app.scheduling.thread_pool import FairThreadPool, Timed
from app.settings import Settings
from flows.fastflow import bundle, models_folder
from flows.fastflow.calibration import Calibrator
from flows.fastflow.detector import (
    Detector,
    DeviceError,
    GoldenError,
    UncalibratedError,
    own_calibrator,
    pick_device,
)
from flows.fastflow.engines import Engine, Kind, pick_engine
from flows.fastflow.engines.errors import EngineError
from flows.fastflow.manifest import Precision
from flows.fastflow.recorded_backbone import FrozenBackbone, fits
from flows.fastflow.scorer import NotNumbersError, Scorer
from flows.fastflow.weights import WeightsError

logger = logging.getLogger("flowgauge.loader")

T = TypeVar("T")
# Who waits for a load: a line, or an administrator who activates; who asks for a version by name; an upload.
Lane = Literal["active", "named", "upload"]


@dataclass(frozen=True)
class Resident:
    """A loaded model.

    Attributes:
        detector: the model.
        nbytes: of its head, in memory.
    """

    detector: Detector
    nbytes: int


def reason(error: Exception, folder: Path, models: Path) -> str:
    """What is wrong with a bundle in words that may leave this machine: they name none of its paths.

    Args:
        error: as the bundle was read.
        folder: of the bundle.
        models: the models folder.
    """
    text = str(error)
    for path, name in ((folder, "the bundle"), (models, "the models folder")):
        for form in (str(path.resolve()), str(path.absolute()), str(path)):
            text = text.replace(f"{form}/", "").replace(form, name)
    return " ".join(text.split())


class Refused(Exception):  # noqa: N818
    """A bundle that cannot be loaded. The message says why, in words that may leave this machine.

    Attributes:
        problem: what kind of problem it is to whoever asks for the model.
        uncalibrated: whether it has no calibration for the engine, or one that cannot be read: then the
            message is for whoever inspects, too.
        unforeseen: whether only the traceback of what it comes of says why.
    """

    def __init__(
        self,
        reason: str,
        problem: ProblemName = "rejected-bundle",
        *,
        uncalibrated: bool = False,
        unforeseen: bool = False,
    ) -> None:
        super().__init__(reason)
        self.problem: ProblemName = problem
        self.uncalibrated = uncalibrated
        self.unforeseen = unforeseen


class Loader:
    """Loads bundles. Those with the same backbone weights, stages and input size share a backbone.

    Every load verifies all hashes. Golden pictures are replayed once for each manifest: what has its sha256
    is the same model to the last bit, and has reproduced its scores on this very device.

    Args:
        models: the models folder, with the backbones' weights.
        device: as for `Detector.load`.
        precision: as for `engines.pick_engine`.
        engine: likewise, its kind.
        cache: likewise.
    """

    def __init__(
        self,
        models: Path,
        device: str,
        precision: Precision = "float32",
        engine: Kind = "torch",
        cache: Path | None = None,
    ) -> None:
        self._models = models
        self._device = device
        self._precision = precision
        self._kind: Kind = engine
        self._cache = cache
        self._calibrations = CalibrationFiles(models)
        # One thread: two categories never build the same backbone twice. What a line waits for goes before
        # what somebody asks for by name, and uploads.
        self._turns = FairThreadPool(1, "loader", first="active")
        self._specialising = ThreadPoolExecutor(1, "specialiser")
        self._begun: dict[Path, Future[Timed[Resident | None]]] = {}
        self._extractors: WeakSet[FrozenBackbone] = WeakSet()
        self._replayed: set[str] = set()
        self._renewed_for_others: set[str] = set()  # what that was said of
        # By backbone the shapes of models that the engine is ready for.
        self._warm: WeakKeyDictionary[FrozenBackbone, set[tuple[object, ...]]] = WeakKeyDictionary()

    def begin(self, folder: Path) -> None:
        """Begin to load a bundle that `load` will be called for first, before there is an event loop.

        Nothing else may have been loaded before. Only if its backbone is converted: otherwise it would take
        longer than what it is to fill the time of, and a start that is refused meanwhile would have to wait
        for it.
        """
        self._begun[folder] = self._turns.submit("active", partial(self._load_if_converted, folder))

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The loader that a service needs."""
        how = settings.precision, settings.engine, settings.compiled
        return cls(settings.models, settings.device, *how)

    async def load(self, folder: Path, lane: Lane = "active") -> Resident:
        """Load a bundle, which may be complete but not in its place yet.

        Args:
            folder: .../<category>/<version>.
            lane: who waits for it.

        Raises:
            Refused: it cannot be loaded, for whatever reason.
        """
        begun = self._begun.pop(folder, None)
        self._begun.clear()  # of another version, nobody knows when it would be asked for
        if begun is not None:
            resident = await self._try(lambda _: begun.result().value, folder, lane)
            if resident is not None:
                return resident
        return await self._try(self._load, folder, lane)

    async def check(self, folder: Path) -> str:
        """Load a bundle as `load` does, to see that it is good; gives its manifest's sha256.

        One that has no calibration for the engine is good: that can be made when it is in its place.

        Raises:
            Refused: it could not be loaded, for whatever other reason.
        """
        return await self._try(self._check, folder, "upload")

    async def verify(self, folder: Path) -> str:
        """Verify a bundle's files without loading it; gives its manifest's sha256.

        Raises:
            Refused: a file was changed, is missing or cannot be read.
        """
        return await self._try(_verify, folder, "active")

    async def _try(self, function: Callable[[Path], T], folder: Path, lane: Lane) -> T:
        try:
            return (await self._turns.run(lane, partial(_failing, function, folder))).value
        # Reading a damaged file can fail in any way; none of them may reach the other models.
        except Exception as error:
            raise self._refused(folder, error) from error

    def _refused(self, folder: Path, error: Exception) -> Refused:
        if isinstance(error, Problem):  # of the calibration beside the bundle
            return Refused(error.detail, error.name, uncalibrated=True)
        if not isinstance(error, bundle.BundleError | WeightsError | DeviceError | EngineError):
            return Refused(
                f"Loading the bundle ended with {type(error).__name__}; the server's log has more.",
                unforeseen=True,
            )
        text = f"The bundle was refused: {reason(error, folder, self._models)}."
        return Refused(text, uncalibrated=isinstance(error, UncalibratedError))

    def close(self) -> None:
        """Let a load that runs finish, and end the threads."""
        self._specialising.shutdown(wait=False, cancel_futures=True)
        self._turns.close()
        self._specialising.shutdown()

    @cached_property
    def _engine(self) -> Engine:
        """One for all models, which share what it compiles; picked when the first of them is loaded."""
        return pick_engine(self._precision, pick_device(self._device), self._kind, self._cache)

    def _check(self, folder: Path) -> str:
        manifest = bundle.read_manifest(folder)
        sha256 = bundle.manifest_sha256(folder, manifest)
        # No picture is judged by it.
        without = own_calibrator(manifest, sha256, "float32")
        return self._load(folder, without).detector.sha256

    def _load_if_converted(self, folder: Path) -> Resident | None:
        manifest = bundle.read_manifest(folder)
        is_converted = self._engine.has_converted(manifest.backbone, manifest.input_size)
        return self._load(folder) if is_converted else None

    def _load(self, folder: Path, without: Calibrator | None = None) -> Resident:
        detector = self._read(folder, without)
        detector.scorer.let_go()
        self._warm_up(detector)
        self._extractors.add(detector.scorer.extractor)
        self._replayed.add(detector.sha256)
        self._say_if_renewed_for_others(Slot.of(detector))
        # It serves meanwhile.
        with suppress(RuntimeError):  # it closes
            self._specialising.submit(_specialise, ref(detector.scorer), folder)
        return Resident(detector, detector.nbytes)

    def _read(self, folder: Path, without: Calibrator | None) -> Detector:
        manifest = bundle.read_manifest(folder)
        return Detector.load(
            folder,
            device=self._device,
            backbone=next((e for e in self._extractors if fits(e, manifest)), None),
            backbones=self._models / models_folder.BACKBONES,
            replayed=self._replayed,
            engine=self._engine,
            fallback=self._calibrations.instead(folder, self._precision) or without,
        )

    def _say_if_renewed_for_others(self, slot: Slot) -> None:
        """Warn once of a version whose renewals the server passes over, for they are of other engines."""
        renewed = self._calibrations.precisions(slot)
        if not renewed or slot.precision in renewed or slot.sha256 in self._renewed_for_others:
            return
        self._renewed_for_others.add(slot.sha256)
        logger.warning(
            "%s/%s was calibrated with pictures of the line for %s and not for %s, which serves it by the "
            "version's own calibration; `flowgauge calibrate --precision %s` makes up for it",
            slot.manifest.category,
            slot.manifest.version,
            " and ".join(renewed),
            slot.precision,
            slot.precision,
        )

    def _warm_up(self, detector: Detector) -> None:
        """Compile, or lay out, what first batches would wait for; once for all models of a shape."""
        manifest, scorer = detector.manifest, detector.scorer
        whole = scorer.layout(manifest.input_size).is_whole
        shape = (manifest.input_size, manifest.normalisation, manifest.gaussian, manifest.flow, whole)
        warm = self._warm.setdefault(scorer.extractor, set())
        if shape not in warm:
            try:
                scorer.warm_up()
            except NotNumbersError as error:
                raise GoldenError(f"{error}; it will not be served") from error
            warm.add(shape)


def _specialise(scorer: ReferenceType[Scorer], folder: Path) -> None:
    if (still_there := scorer()) is not None:
        try:
            still_there.specialise()
        except Exception:  # of OpenVINO's many kinds
            logger.exception("%s/%s goes on with the graphs that it shares", folder.parent.name, folder.name)


def _failing(function: Callable[[Path], T], folder: Path) -> T:
    """Call a function; what it ends with is an Exception. A library of Rust may panic with what is none."""
    try:
        return function(folder)
    except Exception:
        raise
    except BaseException as error:
        raise RuntimeError(f"it ended with {type(error).__name__}") from error


def _verify(folder: Path) -> str:
    return bundle.manifest_sha256(folder, bundle.verify(folder))
