"""The way of an image through the service: decoded, computed in a batch, explained, kept, answered."""

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from app.admission import Reservation
from app.batcher import Batcher
from app.category_settings import CategorySettings
from app.history.history import History
from app.history.losses import lost
from app.history.queries import Earlier
from app.idempotency import Idempotency
from app.inference import Decoded, Inference
from app.inspection import Answer, Drawing, Explained, Inspected, draw
from app.problems import Problem
from app.schemas import predict as schemas
from app.store import Store
from app.telemetry import Telemetry
from app.turns import Timed
from app.verdict import expect_detectable, thresholds
from flows.fastflow.calibration import Measurement, measure
from flows.fastflow.detector import Detector
from flows.fastflow.heatmap import ColourScale

T = TypeVar("T")


@dataclass(frozen=True)
class Order:
    """What a request wants of an image.

    Attributes:
        detector: the model.
        version: the version that the request names; None for the active one.
        texts: part_id, product_id, recipe_id and station, those that were given.
        wanted: pictures to draw.
        regions: whether to find the regions above the pixel threshold.
        store: whether to keep the inspection.
        key_id: whose request it is.
        request_id: of the request.
        idempotency_key: None where it may be inspected again.
        start: time.perf_counter() when the request came.
        deadline: time.monotonic() until which somebody waits for it.
    """

    detector: Detector
    version: str | None
    texts: Mapping[str, str]
    wanted: Collection[Drawing]
    regions: bool
    store: bool
    key_id: str | None
    request_id: str
    idempotency_key: str | None
    start: float
    deadline: float

    @property
    def category(self) -> str:
        """The model's."""
        return self.detector.manifest.category

    def digest(self, image_sha256: str) -> str:
        """sha256 of what an idempotency key stands for: all that decides the answer, but for what is set.

        Not the version that is active: who sends a request again gets the first answer, whatever was
        activated in between.
        """
        fields = sorted(self.texts.items())
        what = [self.category, self.version, self.regions, image_sha256, fields]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()


class Inspector:
    """Takes images through the parts of the service."""

    def __init__(
        self, inference: Inference, batcher: Batcher, store: Store, history: History, telemetry: Telemetry
    ) -> None:
        self._inference = inference
        self._batcher = batcher
        self._store = store
        self._history = history
        self._telemetry = telemetry
        self._idempotency = Idempotency(history)

    async def inspect(self, order: Order, data: bytes, room: Reservation) -> Answer:
        """Inspect an image.

        Args:
            order: what is wanted.
            data: the upload's bytes, counted in `room`.
            room: counts what else is held.

        Raises:
            Problem: too-large, unsupported-media-type, undecodable-image, deadline-exceeded, queue-full,
                history-unavailable or idempotency-key-reused; model-loading where the model could tell no
                defect in the station's region; unknown-inspection or files-lost where the map of one that was
                inspected before is not there.
        """
        keep = "overlay" in order.wanted
        decoded = await self._decode(order.detector, data, keep_pixels=keep)
        room.hold(decoded.value.nbytes)
        if order.idempotency_key is None:
            return await self._fresh(order, data, decoded, None)
        digest = order.digest(decoded.value.sha256)
        async with self._idempotency.claim(order.key_id, order.idempotency_key, digest) as earlier:
            if earlier is not None:
                return await self._again(order, earlier, decoded.value)
            return await self._fresh(order, data, decoded, digest)

    async def measure(self, detector: Detector, data: bytes) -> Measurement:
        """Score a good image for a calibration, whole as all of them are. It is kept nowhere.

        Raises:
            Problem: as of its decoding; draining.
        """
        decoded = await self._decode(detector, data)
        prediction = (await self._batcher.predict(detector, decoded.value.prepared)).prediction
        return measure(prediction)

    async def _decode(self, detector: Detector, data: bytes, *, keep_pixels: bool = False) -> Timed[Decoded]:
        """Decode an upload as the detector's model was made to see it."""
        manifest = detector.manifest
        return await self._inference.decode(
            manifest.category, data, detector.prepare, manifest.sample_bits, keep_pixels=keep_pixels
        )

    async def off_loop(self, category: str, function: Callable[[], T]) -> T:
        """Call what takes longer than the event loop should: in a category's turn, by threads that draw."""
        timed: Timed[T] = await self._inference.draw(category, function)
        return timed.value

    async def _fresh(self, order: Order, data: bytes, decoded: Timed[Decoded], digest: str | None) -> Answer:
        detector = order.detector
        if order.store:  # before the model has worked for nothing
            self._history.expect_room(len(data))
        settings = self._store.settings(order.category)
        station = order.texts.get("station")
        calibrator = self._store.calibrations.get(detector, station)
        region = await self._region(order.category, settings, station, decoded.value.prepared.layout.size)
        if region is not None:
            expect_detectable(detector, region)
        batched = await self._batcher.predict(detector, decoded.value.prepared, region, order.deadline)
        inspected = Inspected(
            detector,
            thresholds(calibrator, settings),
            _used(settings, station),
            order.texts,
            decoded,
            batched,
        )
        explained = await self._explain(inspected, order)
        inspection = inspected.inspection(explained, order.store, time.perf_counter() - order.start)
        if order.store:
            sender = {
                "key_id": order.key_id,
                "request_id": order.request_id,
                "idempotency_key": order.idempotency_key,
                "request_sha256": digest,
            }
            await self._history.record(inspected.entry(inspection, data, sender))
        self._telemetry.decided(inspection)
        return Answer(inspection, explained.value.files)

    async def _region(
        self, category: str, settings: CategorySettings, station: str | None, size: tuple[int, int]
    ) -> NDArray[np.bool_] | None:
        """The mask of the region of interest; the first time, drawing it takes a while."""
        region = settings.known_region_mask(station, size)
        if region is None and settings.region_of(station)[1] is not None:
            # Not in asyncio's own threads: while a database hangs, all of them may wait for it.
            region = await self.off_loop(category, partial(settings.region_mask, station, size))
        return region

    async def _explain(self, inspected: Inspected, order: Order) -> Timed[Explained]:
        begun = time.perf_counter()
        explained = inspected.explain_at_once(order.wanted, order.regions)
        if explained is not None:
            return Timed(explained, 0.0, time.perf_counter() - begun)
        return await self._inference.draw(order.category, inspected.explain, order.wanted, order.regions)

    async def _again(self, order: Order, found: Earlier, decoded: Decoded) -> Answer:
        """Give the answer that was given before, with pictures drawn anew from the map that was kept."""
        inspection = schemas.Inspection.model_validate_json(found.answer)
        if not order.wanted:
            return Answer(inspection, {}, replayed=True)
        await self._history.settled(found.id)  # before, its map is not in its place
        score_map = await asyncio.to_thread(self._history.pictures.score_map, found.id)
        if score_map is None:
            problem = await asyncio.to_thread(lost, self._history.database, found.id)
            raise Problem(
                problem.name, f"This was inspected before; accept application/json. {problem.detail}"
            )
        scale = ColourScale(found.map_low, found.map_middle)
        files = await self._inference.draw(
            order.category, draw, order.wanted, decoded.pixels, decoded.size, score_map, scale
        )
        return Answer(inspection, files.value, replayed=True)


def _used(settings: CategorySettings, station: str | None) -> schemas.SettingsUsed:
    whose, region = settings.region_of(station)
    used = None if region is None else schemas.RegionUsed(station=whose, revision=region.revision)
    return schemas.SettingsUsed(revision=settings.revision, region=used)
