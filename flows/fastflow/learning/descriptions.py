"""Descriptions of a version's good images, stored in its bundle to learn from reviews later."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from flows.fastflow.bundle.bundle import BundleError, read_verified
from flows.fastflow.manifest import PRECISIONS, Manifest, Precision

DESCRIPTIONS = "learning/descriptions.safetensors"
_MAX_BYTES = 512 * 2**20

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Descriptions:
    """Descriptions of good images, see `learned.describe`.

    Attributes:
        fitted: (n, D), of images that the flow was fitted to.
        fitted_scores: (n,), their scores without a learned part.
        held_out: per precision (m, D), of the calibration images, in the order of the calibration's scores.
    """

    fitted: Array
    fitted_scores: Array
    held_out: Mapping[Precision, Array]

    def to_bytes(self) -> bytes:
        """Store the descriptions with half the digits, which changes a learned part by less than 0.1 %."""
        arrays = {f"held_out.{name}": values for name, values in self.held_out.items()}
        largest = float(np.finfo(np.float16).max)
        arrays["fitted"] = self.fitted
        half = {name: x.clip(-largest, largest).astype(np.float16) for name, x in arrays.items()}
        return save({**half, "fitted_scores": self.fitted_scores.astype(np.float32)})


def read_descriptions(bundle: Path, manifest: Manifest) -> Descriptions | None:
    """Read the descriptions in a bundle; None if it has none.

    Raises:
        BundleError: the file is damaged, or does not fit the manifest.
    """
    if DESCRIPTIONS not in manifest.files:
        return None
    try:
        arrays = load(read_verified(bundle, manifest, DESCRIPTIONS, _MAX_BYTES))
    except SafetensorError as error:
        raise BundleError(f"{bundle / DESCRIPTIONS} cannot be read") from error
    columns = 2 * sum(manifest.backbone.channels)
    expected = {f"held_out.{name}": _count(manifest, name) for name in PRECISIONS}
    expected = {name: count for name, count in expected.items() if count}
    sizes = {name: x.shape for name, x in arrays.items()}
    fitted = sizes.get("fitted", (0,))[0]
    wanted = {name: (count, columns) for name, count in expected.items()}
    if sizes != {**wanted, "fitted": (fitted, columns), "fitted_scores": (fitted,)}:
        raise BundleError(f"{bundle / DESCRIPTIONS} does not fit its manifest")
    values = {name: x.astype(np.float32) for name, x in arrays.items()}
    held_out = {name: values[f"held_out.{name}"] for name in PRECISIONS if f"held_out.{name}" in values}
    return Descriptions(values["fitted"], values["fitted_scores"], held_out)


def _count(manifest: Manifest, precision: Precision) -> int:
    calibration = manifest.calibration_of(precision)
    return 0 if calibration is None else len(calibration.scores)
