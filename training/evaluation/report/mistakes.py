"""The worst mistakes of a model, as small images with heatmaps to embed in the report."""

import base64
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from flows.fastflow.detector import Detector
from flows.fastflow.imaging.decoder import read_image
from flows.fastflow.imaging.heatmap import render_overlay
from training.data.thumbnails import encode_webp, shrink
from training.evaluation.ground_truth import read_ground_truth
from training.evaluation.scoring import Evaluation, ScoredSample

MAX_MISTAKES = 6
_OUTLINE = (0, 230, 255)  # cyan, which the heatmap does not use


@dataclass(frozen=True)
class Mistake:
    """A test image with the model's result.

    Attributes:
        wrong: False for a right decision close to the threshold.
        outlined: True if the image shows an outline of the defect from its mask.
        image, overlay: data URIs of WebP files.
        width, height: size of both, in pixels.
    """

    name: str
    row: ScoredSample
    wrong: bool
    outlined: bool
    image: str
    overlay: str
    width: int
    height: int


def worst_mistakes(detector: Detector, evaluation: Evaluation) -> tuple[list[Mistake], list[Mistake]]:
    """Select the good parts with the highest scores, and the defective parts with the lowest.

    At most six of each. If fewer than three decisions were wrong, the closest right ones fill up to three.

    Raises:
        ImageError: an image is gone since it was scored.
    """
    good = sorted((r for r in evaluation.rows if r.defect is None), key=lambda r: -r.score)
    defective = sorted((r for r in evaluation.rows if r.defect is not None), key=lambda r: r.score)
    return _select(detector, good, "REJECT"), _select(detector, defective, "PASS")


def _select(detector: Detector, rows: list[ScoredSample], wrong: str) -> list[Mistake]:
    count = min(MAX_MISTAKES, max(3, sum(row.decision == wrong for row in rows)))
    return [_mistake(detector, row, row.decision == wrong) for row in rows[:count]]


def _mistake(detector: Detector, row: ScoredSample, wrong: bool) -> Mistake:
    image = read_image(row.path, sample_bits=detector.manifest.sample_bits)
    [prediction] = detector.predict([image])
    shown = shrink(image)
    height, width = shown.shape[:2]
    mask = read_ground_truth(row.sample, (image.shape[0], image.shape[1]), (height, width))
    overlay = render_overlay(shown, prediction.score_map, detector.calibrator.colour_scale)
    return Mistake(
        name=f"{row.path.parent.name}/{row.path.name}",
        row=row,
        wrong=wrong,
        outlined=bool(mask.any()),
        image=data_uri(encode_webp(_outlined(shown, mask))),
        overlay=data_uri(encode_webp(overlay)),
        width=width,
        height=height,
    )


def _outlined(rgb: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Draw a line around the marked area, slightly outside so that it hides nothing."""
    wider = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), dtype=np.uint8))
    contours, _ = cv2.findContours(wider, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(rgb.copy(), contours, -1, _OUTLINE, 1), dtype=np.uint8)


def data_uri(webp: bytes) -> str:
    """Embed a WebP file."""
    return "data:image/webp;base64," + base64.b64encode(webp).decode("ascii")
