"""Bare backbones: from uint8 images to feature maps, with nothing around them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils import convert_conv2d_weight_memory_format

from flows.fastflow.backbones.features import FeatureExtractor
from flows.fastflow.model.head import autocast_for

Images = NDArray[np.uint8]
_HINTS = {"float32": "f32", "bfloat16": "bf16"}


def on_torch(extractor: FeatureExtractor, precision: str, device: str) -> Callable[[Images], object]:
    """Return a synchronous function from (N, H, W, 3) uint8 images to feature maps, on torch."""
    extractor.to(device)
    convert_conv2d_weight_memory_format(extractor, torch.channels_last)

    def run(images: Images) -> object:
        with autocast_for("bfloat16" if precision == "bfloat16" else "float32", torch.device(device)):
            maps = extractor(torch.from_numpy(images).to(device))
        if device != "cpu":
            torch.cuda.synchronize()
        return maps

    return run


def on_openvino(
    extractor: FeatureExtractor, precision: str, threads: int, batches: Sequence[int], size: tuple[int, int]
) -> Callable[[Images], object]:
    """Return the same function on OpenVINO, compiled for one (height, width) and batch sizes."""
    import openvino

    from flows.fastflow.engines.openvino.backbone import convert

    core = openvino.Core()
    hints = {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    model = convert(extractor, size)
    compiled: dict[int, Any] = {}
    for batch in batches:
        model.reshape([batch, *size, 3])
        compiled[batch] = core.compile_model(model, "CPU", hints)
    return lambda images: compiled[len(images)](images)
