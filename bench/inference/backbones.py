"""The floor: a backbone alone, from uint8 pictures to feature maps, as bare as each runtime has it."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils import convert_conv2d_weight_memory_format

from flows.fastflow.features import FeatureExtractor
from flows.fastflow.head import computing

Pictures = NDArray[np.uint8]
_HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}


def on_torch(extractor: FeatureExtractor, precision: str, device: str) -> Callable[[Pictures], object]:
    """A call of a backbone on torch, with (N, H, W, 3) uint8 in numpy; done when it returns."""
    extractor.to(device)
    convert_conv2d_weight_memory_format(extractor, torch.channels_last)

    def run(images: Pictures) -> object:
        with computing("bfloat16" if precision == "bfloat16" else "float32", torch.device(device)):
            maps = extractor(torch.from_numpy(images).to(device))
        if device != "cpu":
            torch.cuda.synchronize()
        return maps

    return run


def on_openvino(
    extractor: FeatureExtractor, precision: str, threads: int, batches: Sequence[int], seen: Pictures
) -> Callable[[Pictures], object]:
    """A call of a backbone on OpenVINO, compiled for pictures of one size in batches of some sizes.

    Args:
        extractor: the backbone.
        precision: float32, bfloat16, or int8: weights and activations in 8 bits, in float32 what cannot be.
        threads: of OpenVINO.
        batches: their sizes.
        seen: (N, H, W, 3), by which NNCF chooses the ranges of int8.
    """
    import openvino

    from flows.fastflow.engines.openvino_backbone import convert

    core = openvino.Core()
    hints = {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    model = convert(extractor, seen.shape[1:3])
    if precision == "int8":
        model = _quantised(model, seen)
    compiled: dict[int, Any] = {}
    for batch in batches:
        model.reshape([batch, *seen.shape[1:]])
        compiled[batch] = core.compile_model(model, "CPU", hints)
    return lambda images: compiled[len(images)](images)


def _quantised(model: Any, seen: Pictures) -> Any:
    # It reports to its makers otherwise.
    os.environ.setdefault("NNCF_CI", "1")
    import nncf  # type: ignore[import-untyped, import-not-found, unused-ignore]

    return nncf.quantize(model, nncf.Dataset(list(seen[:, None])), subset_size=len(seen))
