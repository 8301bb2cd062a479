"""Descriptions as a bundle stores them."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load

from flows.fastflow.bundle.bundle import BundleError, read_manifest
from flows.fastflow.learning.descriptions import DESCRIPTIONS, Descriptions, read_descriptions


def test_extreme_numbers_stay_finite() -> None:
    rows = np.array([[1e6, -1e6, 0.1]], np.float32)
    stored = load(Descriptions(rows, np.zeros(1, np.float32), {"float32": rows}).to_bytes())
    for name in ("fitted", "held_out.float32"):
        np.testing.assert_array_equal(stored[name], np.array([[65504, -65504, 0.1]], np.float16))


def test_damaged_file_is_refused(tiny: Path) -> None:
    manifest = read_manifest(tiny)
    assert read_descriptions(tiny, manifest) is not None
    (tiny / DESCRIPTIONS).write_bytes(b"damaged")
    with pytest.raises(BundleError, match=f"{DESCRIPTIONS} was changed"):
        read_descriptions(tiny, manifest)
