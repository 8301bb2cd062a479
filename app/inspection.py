"""From an inspected image to its answer: the JSON, the overlay, or the map."""

import base64
import io
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from starlette.responses import Response

from app import schemas
from app.inference import Decoded, Timed
from flows.fastflow import heatmap
from flows.fastflow.detector import Detector, Prediction

MediaType = Literal["application/json", "image/png", "application/x-npy"]
MEDIA_TYPES: Final[tuple[MediaType, ...]] = ("application/json", "image/png", "application/x-npy")

Drawing = Literal["overlay", "heatmap", "map"]


@dataclass(frozen=True)
class Inspected:
    """An image, what the model said of it, and how long that took."""

    detector: Detector
    texts: Mapping[str, str]
    decoded: Timed[Decoded]
    predicted: Timed[Prediction]

    def draw(self, wanted: Collection[Drawing]) -> dict[Drawing, bytes]:
        """Make files of the prediction: PNGs of the upload's size, and the float32 map as .npy."""
        image = self.decoded.value.pixels
        score_map = self.predicted.value.score_map
        scale = self.detector.colour_scale
        files: dict[Drawing, bytes] = {}
        if "overlay" in wanted:
            files["overlay"] = heatmap.encode_png(heatmap.overlay(image, score_map, scale))
        if "heatmap" in wanted:
            height, width, _ = image.shape
            colours = heatmap.colours(score_map, scale, (height, width))
            files["heatmap"] = heatmap.encode_png(colours)
        if "map" in wanted:
            file = io.BytesIO()
            np.save(file, score_map.astype(np.float32, copy=False), allow_pickle=False)
            files["map"] = file.getvalue()
        return files

    def answer(self, media_type: MediaType, drawn: Timed[dict[Drawing, bytes]], seconds: float) -> Response:
        """Make the response.

        Args:
            media_type: the form of the answer.
            drawn: its pictures, from `draw`.
            seconds: since the request came.
        """
        if media_type == "image/png":
            return Response(drawn.value["overlay"], headers=self._headers(), media_type=media_type)
        if media_type == "application/x-npy":
            return Response(drawn.value["map"], headers=self._headers(), media_type=media_type)
        inspection = self._inspection(drawn, seconds)
        without = {"inline"} if inspection.inline is None else None
        return Response(inspection.model_dump_json(exclude=without), media_type=media_type)

    def _headers(self) -> dict[str, str]:
        prediction = self.predicted.value
        height, width, _ = self.decoded.value.pixels.shape
        return {
            "X-Decision": prediction.decision,
            "X-Score": repr(prediction.score),
            "X-P-Value": repr(prediction.p_value),
            "X-Model-Version": self.detector.manifest.version,
            "X-Image-Width": str(width),
            "X-Image-Height": str(height),
        }

    def _inspection(self, drawn: Timed[dict[Drawing, bytes]], seconds: float) -> schemas.Inspection:
        manifest = self.detector.manifest
        prediction = self.predicted.value
        threshold = self.detector.threshold
        pixel = self.detector.colour_scale.middle
        height, width, _ = self.decoded.value.pixels.shape
        waited = self.decoded.waited + self.predicted.waited + drawn.waited
        return schemas.Inspection(
            inspection_id=str(uuid.uuid4()),
            part_id=self.texts.get("part_id"),
            product_id=self.texts.get("product_id"),
            recipe_id=self.texts.get("recipe_id"),
            station=self.texts.get("station"),
            model=schemas.ModelUsed(
                category=manifest.category, version=manifest.version, sha256=self.detector.sha256
            ),
            decision=prediction.decision,
            score=prediction.score,
            p_value=prediction.p_value,
            threshold=schemas.Threshold(
                reject=threshold.reject,
                pixel=pixel,
                target_fpr=threshold.target_fpr,
                certified=threshold.certified,
                achievable_fpr=threshold.achievable_fpr,
                n_calibration=threshold.n_calibration,
            ),
            anomalous_area_fraction=float((prediction.score_map > pixel).mean()),
            image=schemas.ImageInfo(width=width, height=height, sha256=self.decoded.value.sha256),
            timing_ms=schemas.Timing(
                decode=1000 * self.decoded.took,
                queue=1000 * waited,
                infer=1000 * self.predicted.took,
                render=1000 * drawn.took,
                total=1000 * seconds,
            ),
            batch_size=1,
            engine=self.detector.engine,
            inline={
                name: base64.b64encode(file).decode() for name, file in drawn.value.items() if name != "map"
            }
            or None,
        )
