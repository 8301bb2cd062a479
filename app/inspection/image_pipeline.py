"""The inspection of one image: decode, score in a batch, decide, explain, store."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from app.errors.problems import Problem
from app.history.history import History
from app.history.orphans import explain_missing_files
from app.history.queries import EarlierAnswer
from app.inspection.answer import Answer, make_entry, make_inspection, read_answer
from app.inspection.decoding import DecodedUpload, Pixels, decode_pixels, decode_upload
from app.inspection.explanation import Explanation, explain
from app.inspection.idempotency import IdempotencyKeys
from app.inspection.params import PredictRequest
from app.registry.category_settings import CategorySettings
from app.registry.model_settings import apply_settings, require_detectable
from app.registry.model_store import ModelStore
from app.scheduling.admission import Reservation
from app.scheduling.batcher import Batcher, BatchResult
from app.scheduling.thread_pool import FairThreadPool, TimedResult
from app.schemas import predict as schemas
from app.telemetry.metrics import Telemetry
from flows.fastflow.calibration.calibrator import ImageMeasurement, measure_image
from flows.fastflow.config import MAX_SAMPLE_BITS
from flows.fastflow.detector import Detector
from flows.fastflow.imaging.heatmap import ColourScale
from flows.fastflow.imaging.image_limits import ImageLimits

T = TypeVar("T")

# The event loop may search maps up to this size; it takes a tenth of a millisecond.
_MAX_INLINE_PIXELS: Final = 2**18


class InspectionPipeline:
    """Runs images through the stages of an inspection.

    Decoding and drawing have a pool of `threads` threads each. In one shared pool, drawings of decided images
    would wait behind the decoding of new ones. `audit_share` holds for categories without their own.
    """

    def __init__(
        self,
        limits: ImageLimits,
        threads: int,
        batcher: Batcher,
        store: ModelStore,
        history: History,
        telemetry: Telemetry,
        audit_share: float,
    ) -> None:
        self._limits = limits
        self._decoding = FairThreadPool(threads, "decode")
        self._drawing = FairThreadPool(threads, "draw")
        self._batcher = batcher
        self._store = store
        self._history = history
        self._telemetry = telemetry
        self._audit_share = audit_share
        self._idempotency = IdempotencyKeys(history)

    def close(self) -> None:
        """Finish running jobs, drop waiting ones, end the threads."""
        self._decoding.close()
        self._drawing.close()

    async def inspect(self, request: PredictRequest, data: bytes, reservation: Reservation) -> Answer:
        """Inspect an image; its memory is counted in the reservation.

        Raises:
            Problem: too-large, unsupported-media-type, undecodable-image, deadline-exceeded, queue-full,
                history-unavailable or idempotency-key-reused; model-loading if the station's region is too
                small to detect a defect; unknown-inspection or files-lost if a repeated request needs a map
                that is gone.
        """
        decoded = await self._decode(request.detector, data, keep_pixels="overlay" in request.drawings)
        reservation.hold(decoded.value.nbytes)
        if request.idempotency_key is None:
            return await self._inspect_new(request, data, decoded, None)
        digest = request.digest(decoded.value.sha256)
        claim = self._idempotency.claim(request.params.caller.key_id, request.idempotency_key, digest)
        async with claim as earlier:
            if earlier is not None:
                return await self._replay(request, earlier, decoded.value)
            return await self._inspect_new(request, data, decoded, digest)

    async def measure(self, detector: Detector, data: bytes) -> ImageMeasurement:
        """Score a good image for a calibration, without a region of interest; nothing is stored."""
        decoded = await self._decode(detector, data, keep_pixels=False)
        return measure_image((await self._batcher.score(detector, decoded.value.prepared)).scored)

    async def read_pixels(self, category: str, data: bytes, use: Callable[[Pixels], T]) -> T:
        """Decode an image that is not inspected, and pass its pixels to a function in the same thread.

        Raises:
            Problem: as `decode_pixels`, or what the function raises.
        """

        def job() -> T:
            return use(decode_pixels(data, self._limits, MAX_SAMPLE_BITS))

        return (await self._decoding.run(category, job)).value

    async def run_in_thread(self, category: str, function: Callable[[], T]) -> T:
        """Call a slow function in a thread, when it is the category's turn."""
        return (await self._drawing.run(category, function)).value

    async def _decode(
        self, detector: Detector, data: bytes, *, keep_pixels: bool
    ) -> TimedResult[DecodedUpload]:
        bits = detector.manifest.sample_bits
        job = partial(decode_upload, data, self._limits, bits, detector.prepare, keep_pixels=keep_pixels)
        return await self._decoding.run(detector.manifest.category, job)

    async def _inspect_new(
        self, request: PredictRequest, data: bytes, decoded: TimedResult[DecodedUpload], digest: str | None
    ) -> Answer:
        detector, params = request.detector, request.params
        if params.store:  # refuse before the model computes
            self._history.require_room(len(data))
        settings = self._store.settings(request.category)
        station = request.texts.get("station")
        used = apply_settings(self._store.calibrations.get(detector, station), settings)
        region, region_used = await self._load_region(request, settings, decoded.value)
        result = await self._batcher.score(detector, decoded.value.prepared, region)
        explained = await self._explain(request, decoded.value, result, used.calibrator.colour_scale)
        settings_used = schemas.SettingsUsed(revision=settings.revision, region=region_used)
        share = self._audit_share if settings.audit_share is None else settings.audit_share
        inspection = make_inspection(request, decoded, result, explained, used, settings_used, share)
        if params.store:
            await self._history.record(make_entry(request, inspection, data, result, used, digest))
        self._telemetry.count_inspection(inspection)
        return Answer(inspection, explained.value.files)

    async def _load_region(
        self, request: PredictRequest, settings: CategorySettings, decoded: DecodedUpload
    ) -> tuple[NDArray[np.bool_] | None, schemas.RegionUsed | None]:
        """Return the mask of the station's region of interest, and its schema; None if all pixels count."""
        owner, region = settings.region_of(request.texts.get("station"))
        if region is None:
            return None, None
        size = decoded.prepared.layout.size
        mask = region.known_mask(size)
        if mask is None:  # in the drawing threads: it is slow
            mask = await self.run_in_thread(request.category, partial(region.mask, size))
        require_detectable(request.detector, mask)
        return mask, schemas.RegionUsed(station=owner, revision=region.revision)

    async def _explain(
        self, request: PredictRequest, decoded: DecodedUpload, result: BatchResult, scale: ColourScale
    ) -> TimedResult[Explanation]:
        """Draw and find regions, in a thread unless nothing is to be drawn or found."""
        start = time.perf_counter()
        score_map, with_regions = result.scored.score_map, request.params.regions
        is_small = not request.drawings and score_map.size <= _MAX_INLINE_PIXELS
        # NaN fails one of these comparisons, and `explain` refuses it.
        if is_small and score_map.max() <= scale.middle and np.isfinite(score_map.min()):
            nothing = Explanation({}, [] if with_regions else None, 0.0)
            return TimedResult(nothing, 0.0, time.perf_counter() - start)
        input_size = request.detector.manifest.input_size if with_regions else None
        job = partial(explain, score_map, scale, decoded.size, decoded.pixels, request.drawings, input_size)
        return await self._drawing.run(request.category, job)

    async def _replay(
        self, request: PredictRequest, earlier: EarlierAnswer, decoded: DecodedUpload
    ) -> Answer:
        """Repeat the earlier answer, with new drawings of the stored map."""
        inspection = schemas.Inspection.model_validate(read_answer(earlier.answer))
        if not request.drawings:
            return Answer(inspection, {}, replayed=True)
        await self._history.wait_until_filed()  # then its map is on disk
        score_map = await asyncio.to_thread(self._history.files.read_score_map, earlier.id)
        if score_map is None:
            missing = await asyncio.to_thread(explain_missing_files, self._history.database, earlier.id)
            detail = f"The first answer cannot be drawn again; accept application/json. {missing.detail}"
            raise Problem(missing.name, detail)
        scale = ColourScale(earlier.map_low, earlier.map_middle)
        job = partial(explain, score_map, scale, decoded.size, decoded.pixels, request.drawings, None)
        explained = await self.run_in_thread(request.category, job)
        return Answer(inspection, explained.files, replayed=True)
