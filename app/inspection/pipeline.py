"""Inspecting one image: decode, score in a batch, decide, explain, keep."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

import numpy as np

from app.errors.problems import Problem
from app.history.history import History
from app.history.orphans import explain_missing_files
from app.history.queries import EarlierAnswer
from app.inspection.answer import Answer, make_entry, make_inspection
from app.inspection.decoding import DecodedUpload, Explanation, decode_upload, explain
from app.inspection.idempotency import IdempotencyKeys
from app.inspection.params import PredictRequest
from app.registry.model_settings import require_detectable, thresholds
from app.registry.store import Store
from app.scheduling.admission import Reservation
from app.scheduling.batcher import Batcher, BatchResult
from app.scheduling.thread_pool import FairThreadPool, TimedResult
from app.schemas import predict as schemas
from app.telemetry.metrics import Telemetry
from flows.fastflow.calibration.calibrator import ImageMeasurement, measure_image
from flows.fastflow.detector import Detector
from flows.fastflow.imaging.heatmap import ColourScale
from flows.fastflow.imaging.image_limits import ImageLimits

T = TypeVar("T")

# Of a map that the event loop may look through: a tenth of a millisecond.
_AT_ONCE_PIXELS: Final = 2**18


class InspectionPipeline:
    """Takes images through the parts of the service.

    So many threads decode, and as many draw, or what was decided first would be answered last.
    """

    def __init__(
        self,
        limits: ImageLimits,
        threads: int,
        batcher: Batcher,
        store: Store,
        history: History,
        telemetry: Telemetry,
    ) -> None:
        self._limits = limits
        self._decoding = FairThreadPool(threads, "decode")
        self._drawing = FairThreadPool(threads, "draw")
        self._batcher = batcher
        self._store = store
        self._history = history
        self._telemetry = telemetry
        self._idempotency = IdempotencyKeys(history)

    def close(self) -> None:
        """Finish what runs, drop what waits, end the threads."""
        self._decoding.close()
        self._drawing.close()

    async def inspect(self, request: PredictRequest, data: bytes, room: Reservation) -> Answer:
        """Inspect an image, whose bytes are counted in `room`.

        Raises:
            Problem: too-large, unsupported-media-type, undecodable-image, deadline-exceeded, queue-full,
                history-unavailable or idempotency-key-reused; model-loading where the model could tell no
                defect in the station's region; unknown-inspection or files-lost where the map of one that was
                inspected before is not there.
        """
        decoded = await self._decode(request.detector, data, keep_pixels="overlay" in request.drawings)
        room.hold(decoded.value.nbytes)
        if request.idempotency_key is None:
            return await self._inspect_new(request, data, decoded, None)
        digest = request.digest(decoded.value.sha256)
        claim = self._idempotency.claim(request.params.caller.key_id, request.idempotency_key, digest)
        async with claim as earlier:
            if earlier is not None:
                return await self._replay(request, earlier, decoded.value)
            return await self._inspect_new(request, data, decoded, digest)

    async def measure(self, detector: Detector, data: bytes) -> ImageMeasurement:
        """Score a good image for a calibration. The whole image counts, and it is kept nowhere."""
        decoded = await self._decode(detector, data, keep_pixels=False)
        return measure_image((await self._batcher.score(detector, decoded.value.prepared)).scored)

    async def run_in_thread(self, category: str, function: Callable[[], T]) -> T:
        """Call what takes too long for the event loop, in a thread, when it is the category's turn."""
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
        if params.store:  # before the model has worked for nothing
            self._history.require_room(len(data))
        settings = self._store.settings(request.category)
        station = request.texts.get("station")
        used = thresholds(self._store.calibrations.get(detector, station), settings)
        whose, area = settings.region_of(station)
        region = region_used = None
        if area is not None:
            size = decoded.value.prepared.layout.size
            region = area.known_mask(size)
            if region is None:  # in a thread: it takes a while, and others wait there to be drawn
                region = await self.run_in_thread(request.category, partial(area.mask, size))
            require_detectable(detector, region)
            region_used = schemas.RegionUsed(station=whose, revision=area.revision)
        result = await self._batcher.score(detector, decoded.value.prepared, region)
        explained = await self._explain(request, decoded.value, result, used.calibrator.colour_scale)
        settings_used = schemas.SettingsUsed(revision=settings.revision, region=region_used)
        inspection = make_inspection(request, decoded, result, explained, used, settings_used)
        if params.store:
            await self._history.record(make_entry(request, inspection, data, result, used, digest))
        self._telemetry.count_inspection(inspection)
        return Answer(inspection, explained.value.files)

    async def _explain(
        self, request: PredictRequest, decoded: DecodedUpload, result: BatchResult, scale: ColourScale
    ) -> TimedResult[Explanation]:
        """Draw and find regions; in a thread unless there is nothing to draw or find."""
        begun = time.perf_counter()
        score_map, with_regions = result.scored.score_map, request.params.regions
        is_small = not request.drawings and score_map.size <= _AT_ONCE_PIXELS
        # Neither comparison holds of NaN, which is for `explain` to refuse.
        if is_small and score_map.max() <= scale.middle and np.isfinite(score_map.min()):
            quiet = Explanation({}, [] if with_regions else None, 0.0)
            return TimedResult(quiet, 0.0, time.perf_counter() - begun)
        input_size = request.detector.manifest.input_size if with_regions else None
        job = partial(explain, score_map, scale, decoded.size, decoded.pixels, request.drawings, input_size)
        return await self._drawing.run(request.category, job)

    async def _replay(
        self, request: PredictRequest, earlier: EarlierAnswer, decoded: DecodedUpload
    ) -> Answer:
        """Give the answer that was given before, with drawings made anew from the map that was kept."""
        inspection = schemas.Inspection.model_validate_json(earlier.answer)
        if not request.drawings:
            return Answer(inspection, {}, replayed=True)
        await self._history.wait_until_filed()  # before, its map is not in its place
        score_map = await asyncio.to_thread(self._history.files.read_score_map, earlier.id)
        if score_map is None:
            missing = await asyncio.to_thread(explain_missing_files, self._history.database, earlier.id)
            detail = f"This was inspected before; accept application/json. {missing.detail}"
            raise Problem(missing.name, detail)
        scale = ColourScale(earlier.map_low, earlier.map_middle)
        job = partial(explain, score_map, scale, decoded.size, decoded.pixels, request.drawings, None)
        explained = await self.run_in_thread(request.category, job)
        return Answer(inspection, explained.files, replayed=True)
