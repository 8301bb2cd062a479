"""Descriptions as a bundle stores them."""

import numpy as np
from safetensors.numpy import load

from flows.fastflow.learning.descriptions import Descriptions


def test_extreme_numbers_stay_finite() -> None:
    rows = np.array([[1e6, -1e6, 0.1]], np.float32)
    stored = load(Descriptions(rows, np.zeros(1, np.float32), {"float32": rows}).to_bytes())
    for name in ("fitted", "held_out.float32"):
        np.testing.assert_array_equal(stored[name], np.array([[65504, -65504, 0.1]], np.float16))
