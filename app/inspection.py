"""From an inspected image to its answer: the JSON, the pictures, and what the history keeps."""

import base64
import io
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from starlette.responses import Response

from app.batch import Batched
from app.database import clock
from app.history.entry import Entry
from app.inference import Decoded
from app.schemas import predict as schemas
from app.turns import Timed
from app.verdict import shown
from flows.fastflow import heatmap, regions
from flows.fastflow.calibration import Thresholds
from flows.fastflow.detector import Detector
from flows.fastflow.heatmap import ColourScale

MediaType = Literal["application/json", "image/png", "application/x-npy"]
MEDIA_TYPES: Final[tuple[MediaType, ...]] = ("application/json", "image/png", "application/x-npy")

Drawing = Literal["overlay", "heatmap", "map"]

# Of a map that the event loop may look through: a tenth of a millisecond.
_AT_ONCE_PIXELS: Final = 2**18


@dataclass(frozen=True)
class Explained:
    """What is made of an anomaly map: files, and the regions above the pixel threshold."""

    files: Mapping[Drawing, bytes]
    regions: list[schemas.Region] | None
    area_fraction: float


def draw(
    wanted: Collection[Drawing],
    pixels: NDArray[np.uint8] | None,
    size: tuple[int, int],
    score_map: NDArray[np.float32],
    scale: ColourScale,
) -> dict[Drawing, bytes]:
    """Make files of a map: PNGs of the upload's size, and the float32 map as .npy.

    Args:
        wanted: which.
        pixels: the upload, (H, W, 3); only an overlay needs it.
        size: (H, W) of the upload.
        score_map: (h, w).
        scale: of the colours.
    """
    files: dict[Drawing, bytes] = {}
    if "overlay" in wanted and pixels is not None:
        files["overlay"] = heatmap.encode_png(heatmap.overlay(pixels, score_map, scale))
    if "heatmap" in wanted:
        files["heatmap"] = heatmap.encode_png(heatmap.colours(score_map, scale, size))
    if "map" in wanted:
        file = io.BytesIO()
        np.save(file, score_map.astype(np.float32, copy=False), allow_pickle=False)
        files["map"] = file.getvalue()
    return files


@dataclass(frozen=True)
class Inspected:
    """An image, what the model said of it, and how long that took."""

    detector: Detector
    thresholds: Thresholds
    settings: schemas.SettingsUsed
    texts: Mapping[str, str]
    decoded: Timed[Decoded]
    batched: Batched

    def explain_at_once(self, wanted: Collection[Drawing], with_regions: bool) -> Explained | None:
        """What `explain` gives, where that is less work than a thread costs; else None.

        Most pictures have nothing above the pixel threshold, and most requests want nothing drawn.
        """
        score_map = self.batched.prediction.score_map
        if wanted or score_map.size > _AT_ONCE_PIXELS:
            return None
        # Neither holds of NaN, which is for `explain` to refuse.
        is_quiet = score_map.max() <= self.thresholds.calibrator.colour_scale.middle and np.isfinite(
            score_map.min()
        )
        return Explained({}, [] if with_regions else None, 0.0) if is_quiet else None

    def explain(self, wanted: Collection[Drawing], with_regions: bool) -> Explained:
        """Draw, and find the regions: work for a thread.

        Raises:
            ValueError: a value of the map is not finite.
        """
        decoded, score_map = self.decoded.value, self.batched.prediction.score_map
        if not np.isfinite(score_map).all():
            raise ValueError("a score map must be finite")
        scale = self.thresholds.calibrator.colour_scale
        pixel = scale.middle
        found = None
        if with_regions:
            found = [
                schemas.Region(
                    bbox=region.bbox,
                    contour=region.contour,
                    area_px=region.area_px,
                    area_fraction=region.area_fraction,
                    peak=region.peak,
                )
                for region in regions.find(
                    score_map, pixel, decoded.size, math.prod(self.detector.manifest.input_size)
                )
            ]
        files = draw(wanted, decoded.pixels, decoded.size, score_map, scale)
        return Explained(files, found, float((score_map > pixel).mean()))

    def inspection(self, explained: Timed[Explained], stored: bool, seconds: float) -> schemas.Inspection:
        """Make the answer.

        Args:
            explained: from `explain`.
            stored: whether the history will keep it.
            seconds: since the request came.

        Raises:
            ValueError: the score is not finite; NaN, above no threshold, would pass.
        """
        manifest, calibrator = self.detector.manifest, self.thresholds.calibrator
        score = calibrator.score(self.batched.prediction)
        height, width = self.decoded.value.size
        identifier = clock.new_id()
        return schemas.Inspection(
            inspection_id=identifier,
            part_id=self.texts.get("part_id"),
            product_id=self.texts.get("product_id"),
            recipe_id=self.texts.get("recipe_id"),
            station=self.texts.get("station"),
            model=schemas.ModelUsed(
                category=manifest.category, version=manifest.version, sha256=self.detector.sha256
            ),
            decision=self.thresholds.decide(score),
            score=score,
            p_value=calibrator.p_value(score),
            threshold=shown(self.thresholds),
            settings=self.settings,
            regions=explained.value.regions,
            anomalous_area_fraction=explained.value.area_fraction,
            image=schemas.ImageInfo(
                width=width,
                height=height,
                sha256=self.decoded.value.sha256,
                sample_bits=manifest.sample_bits,
            ),
            links=schemas.links_of(identifier) if stored else None,
            timing_ms=schemas.Timing(
                decode=1000 * self.decoded.took,
                queue=1000 * (self.decoded.waited + self.batched.waited + explained.waited),
                infer=1000 * self.batched.took,
                render=1000 * explained.took,
                total=1000 * seconds,
            ),
            batch_size=self.batched.batch_size,
            engine=self.detector.engine,
        )

    def entry(
        self,
        inspection: schemas.Inspection,
        picture: bytes,
        sender: Mapping[str, str | None],
    ) -> Entry:
        """What the history keeps.

        Args:
            inspection: the answer.
            picture: the upload's bytes.
            sender: the columns key_id, request_id, idempotency_key and request_sha256.
        """
        prediction, scale = self.batched.prediction, self.thresholds.calibrator.colour_scale
        row = {
            "id": inspection.inspection_id,
            "created_ms": clock.time_of(inspection.inspection_id),
            "category": inspection.model.category,
            "version": inspection.model.version,
            "precision": self.detector.scorer.precision,
            "decision": inspection.decision,
            "score": inspection.score,
            "p_value": inspection.p_value,
            "part_id": inspection.part_id,
            "product_id": inspection.product_id,
            "recipe_id": inspection.recipe_id,
            "station": inspection.station,
            "image_sha256": inspection.image.sha256,
            "map_low": scale.low,
            "map_middle": scale.middle,
            "features": list(prediction.statistics),
            "answer": inspection.model_dump_json(exclude={"inline"}),
            **sender,
        }
        return Entry(row, picture, prediction.score_map)


@dataclass(frozen=True)
class Answer:
    """An answer that is ready: fresh, or the one that was given before."""

    inspection: schemas.Inspection
    files: Mapping[Drawing, bytes]
    replayed: bool = False

    def respond(self, media_type: MediaType, inline: Collection[schemas.Picture]) -> Response:
        """Make the response.

        Args:
            media_type: the form of the answer.
            inline: pictures to put into the JSON.
        """
        headers = {"Idempotency-Replayed": "true"} if self.replayed else {}
        if media_type == "image/png":
            return Response(self.files["overlay"], headers=self._headers() | headers, media_type=media_type)
        if media_type == "application/x-npy":
            return Response(self.files["map"], headers=self._headers() | headers, media_type=media_type)
        body = self.with_pictures(inline).model_dump_json(exclude=None if inline else {"inline"})
        return Response(body, headers=headers, media_type=media_type)

    def with_pictures(self, inline: Collection[schemas.Picture]) -> schemas.Inspection:
        """Put pictures into the inspection, as base64."""
        if not inline:
            return self.inspection
        pictures = {name: base64.b64encode(self.files[name]).decode() for name in inline}
        return self.inspection.model_copy(update={"inline": pictures})

    def _headers(self) -> dict[str, str]:
        inspection = self.inspection
        return {
            "X-Inspection-ID": inspection.inspection_id,
            "X-Decision": inspection.decision,
            "X-Score": repr(inspection.score),
            "X-P-Value": repr(inspection.p_value),
            "X-Model-Version": inspection.model.version,
            "X-Image-Width": str(inspection.image.width),
            "X-Image-Height": str(inspection.image.height),
        }
