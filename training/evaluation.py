"""A published model against test pictures it has never seen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from flows.fastflow.detector import Decision, Detector
from flows.fastflow.images import read
from training.datasets.sample import DatasetError, Sample
from training.metrics import image_auroc, pixel_auroc


@dataclass(frozen=True)
class Row:
    """What the model says of one test picture; `defect` is the truth, None for a good part."""

    path: Path
    defect: str | None
    score: float
    p_value: float
    decision: Decision


@dataclass(frozen=True)
class Evaluation:
    """Figures over a test set.

    Attributes:
        rows: one per picture, in the order of the samples.
        image_auroc: on raw scores; None where the pictures are all good or all defective.
        pixel_auroc: on raw map values at the model's input size; None where no defect has a mask.
        masked: defective pictures that have a mask; the pixels of the others are not counted.
        false_rejects: share of good parts rejected; None without good parts.
        escapes: share of defective parts passed; None without defective parts.
    """

    rows: list[Row]
    image_auroc: float | None
    pixel_auroc: float | None
    masked: int
    false_rejects: float | None
    escapes: float | None


def evaluate(detector: Detector, samples: Sequence[Sample], advance: Callable[[int], None]) -> Evaluation:
    """Score every test picture as the server would and compare with the truth.

    Pixels count where they are known: those of good parts, and of defects that have a mask with something in
    it.

    Args:
        detector: the model.
        samples: the test set.
        advance: called with 1 after every picture.

    Raises:
        ImageError, DatasetError: a picture or mask cannot be read or does not fit; it is named.
    """
    rows: list[Row] = []
    maps: list[NDArray[np.float32]] = []
    masks: list[NDArray[np.bool_]] = []
    for sample in samples:
        image = read(sample.path)
        [prediction] = detector.predict([image])
        rows.append(
            Row(
                sample.path,
                sample.defect,
                prediction.score,
                prediction.p_value,
                prediction.decision,
            )
        )
        shape = prediction.score_map.shape
        mask = np.zeros(shape, dtype=np.bool_)
        if sample.mask is not None:
            mask = _read_mask(sample.mask, image.shape[:2], (shape[0], shape[1]))
        if sample.defect is None or mask.any():
            maps.append(prediction.score_map)
            masks.append(mask)
        advance(1)
    good = [row for row in rows if row.defect is None]
    defective = [row for row in rows if row.defect is not None]
    masked = sum(bool(mask.any()) for mask in masks)
    auroc = None
    if good and defective:
        auroc = image_auroc([row.defect is not None for row in rows], [row.score for row in rows])
    return Evaluation(
        rows=rows,
        image_auroc=auroc,
        pixel_auroc=pixel_auroc(masks, maps) if masked else None,
        masked=masked,
        false_rejects=_share(good, "REJECT"),
        escapes=_share(defective, "PASS"),
    )


def _share(rows: Sequence[Row], decision: Decision) -> float | None:
    return sum(row.decision == decision for row in rows) / len(rows) if rows else None


def _read_mask(path: Path, image_size: tuple[int, ...], size: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask at the map's size, True where it is nearer to its brightest value than to black.

    So a mask of 0 and 1 reads as one of 0 and 255, and a lossy mask, which has grey edges, as it was drawn.
    """
    mask = read(path)
    if mask.shape[:2] != tuple(image_size):
        raise DatasetError(
            f"the mask {path} has size {mask.shape[1]}x{mask.shape[0]}, its picture "
            f"{image_size[1]}x{image_size[0]}"
        )
    binary = (mask.max(2) > mask.max() / 2).astype(np.uint8)
    small = cv2.resize(binary, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
    return np.asarray(small, dtype=np.bool_)
