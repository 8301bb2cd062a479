"""The images on which a model was most wrong, with their heatmaps, small enough to be embedded."""

import base64
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from flows.fastflow.detector import Detector
from flows.fastflow.imaging.decoder import read_image
from flows.fastflow.imaging.heatmap import render_overlay
from training.evaluation.ranking import read_ground_truth
from training.evaluation.scoring import Evaluation, ScoredSample

MOST = 6
_SIDE = 280  # pixels of the longer side
_QUALITY = 80
_OUTLINE = (0, 230, 255)  # cyan: no colour of the heatmap's


@dataclass(frozen=True)
class Mistake:
    """A test image and what the model saw in it.

    Attributes:
        name: its folder and file.
        row: what the model says.
        wrong: False where it was decided rightly, but came closest to not being so.
        outlined: whether the defect, as its mask has it, is outlined in the image.
        image, overlay: data URIs of WebP images.
        width, height: of both, in pixels.
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
    """Good parts with the highest scores, and defective parts with the lowest.

    Of each at most six; where fewer than three were decided wrongly, the closest calls make up three.

    Raises:
        ImageError: an image has gone since it was scored.
    """
    good = sorted((r for r in evaluation.rows if r.defect is None), key=lambda r: -r.score)
    defective = sorted((r for r in evaluation.rows if r.defect is not None), key=lambda r: r.score)
    return _shown(detector, good, "REJECT"), _shown(detector, defective, "PASS")


def _shown(detector: Detector, rows: list[ScoredSample], wrong: str) -> list[Mistake]:
    count = min(MOST, max(3, sum(row.decision == wrong for row in rows)))
    return [_mistake(detector, row, row.decision == wrong) for row in rows[:count]]


def _mistake(detector: Detector, row: ScoredSample, wrong: bool) -> Mistake:
    image = read_image(row.path, sample_bits=detector.manifest.sample_bits)
    [prediction] = detector.predict([image])
    scale = _SIDE / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    shown = np.asarray(small, dtype=np.uint8)
    mask = read_ground_truth(row.sample, (image.shape[0], image.shape[1]), (size[1], size[0]))
    return Mistake(
        name=f"{row.path.parent.name}/{row.path.name}",
        row=row,
        wrong=wrong,
        outlined=bool(mask.any()),
        image=_data_uri(_outlined(shown, mask)),
        overlay=_data_uri(render_overlay(shown, prediction.score_map, detector.calibrator.colour_scale)),
        width=size[0],
        height=size[1],
    )


def _outlined(rgb: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The image with a line around what the mask marks, a little outside so that it hides nothing."""
    wider = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), dtype=np.uint8))
    contours, _ = cv2.findContours(wider, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(rgb.copy(), contours, -1, _OUTLINE, 1), dtype=np.uint8)


def _data_uri(rgb: NDArray[np.uint8]) -> str:
    done, data = cv2.imencode(
        ".webp", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, _QUALITY]
    )
    if not done:
        raise RuntimeError(f"OpenCV could not encode an image of shape {rgb.shape} as WebP")
    return "data:image/webp;base64," + base64.b64encode(data.tobytes()).decode("ascii")
