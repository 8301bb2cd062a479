"""The least that an inspection can cost: decode a picture, resize it, run the backbone, and nothing else.

tf_efficientnet_lite0 to the stages that the default model uses, in OpenVINO with bfloat16 where the processor
has it; cv2 decodes and resizes. What a server adds to this is measured against it (`bench.request_path`).
"""

import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import openvino as ov
import openvino.properties.hint as hint
import timm
import torch
from numpy.typing import NDArray
from openvino.preprocess import PrePostProcessor

from flows.fastflow.engines import computes_bfloat16

BACKBONE = "tf_efficientnet_lite0"
STAGES = (2, 3, 4)
_TYPES = {"bfloat16": ov.Type.bf16, "float32": ov.Type.f32}


@dataclass(frozen=True)
class Cost:
    """Seconds per picture: of processor time, over all threads, and of the clock."""

    cpu: float
    wall: float


class Floor:
    """A loop of decoding and the backbone.

    Attributes:
        precision: that the backbone is computed in, bfloat16 where the processor has it.

    Args:
        side: of the square input.
        threads: of OpenVINO; by default one for each core.
    """

    def __init__(self, side: int = 256, threads: int | None = None) -> None:
        self.side = side
        torch.manual_seed(0)  # how fast it is does not depend on the weights
        network = timm.create_model(BACKBONE, pretrained=False, features_only=True, out_indices=STAGES).eval()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of torch, on what OpenVINO converts with
            model = ov.convert_model(
                network,
                example_input=torch.zeros(1, 3, side, side),  # of this size: padding is fixed by it
                input=[ov.PartialShape([-1, 3, side, side])],
            )
        # uint8 pixels in, as they come from the decoder; the graph does the arithmetic.
        steps = PrePostProcessor(model)
        steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
        steps.input().model().set_layout(ov.Layout("NCHW"))
        steps.input().preprocess().convert_element_type(ov.Type.f32).mean(127.5).scale(127.5)
        self.precision = "bfloat16" if computes_bfloat16(torch.device("cpu")) else "float32"
        model = steps.build()
        model.reshape([1, side, side, 3])
        threads = threads or os.cpu_count() or 1
        settings = {
            # Not left to OpenVINO, which would choose by the processor without a word.
            hint.inference_precision: _TYPES[self.precision],
            hint.performance_mode: hint.PerformanceMode.LATENCY,
            "INFERENCE_NUM_THREADS": threads,
        }
        core = ov.Core()
        # A picture by all threads; and several beside each other, each by one, which takes less.
        self._alone = core.compile_model(model, "CPU", settings).create_infer_request()
        together = core.compile_model(model, "CPU", settings | {"NUM_STREAMS": threads})
        self._together = ov.AsyncInferQueue(together, 2 * threads)
        self._together.set_callback(_keep)

    def run(self, files: Sequence[bytes]) -> list[NDArray[np.float32]]:
        """Feature maps, one per stage, of a batch of pictures in their files' bytes.

        Raises:
            ValueError: a file is no picture.
        """
        size = (self.side, self.side)
        batch = np.empty((len(files), *size, 3), np.uint8)
        for row, file in zip(batch, files, strict=True):
            pixels = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR_RGB)
            if pixels is None:
                raise ValueError(f"a file of {len(file)} bytes is no picture that cv2 reads")
            cv2.resize(pixels, size, dst=row, interpolation=cv2.INTER_AREA)
        if len(batch) == 1:
            found = self._alone.infer([batch], share_outputs=True)
            return [found[i] for i in range(len(STAGES))]
        maps = [
            np.empty((len(batch), *tensor.shape[1:]), np.float32) for tensor in self._alone.output_tensors
        ]
        for i in range(len(batch)):
            self._together.start_async([batch[i : i + 1]], (maps, i))
        self._together.wait_all()
        return maps

    def cost(self, files: Sequence[bytes], batch: int, seconds: float) -> Cost:
        """What a picture costs, in batches of so many, measured for so long.

        Args:
            files: taken in turn.
            batch: pictures computed together, at least one.
            seconds: of the loop, after one batch to warm up.
        """
        picked = [files[i % len(files)] for i in range(batch)]
        self.run(picked)
        begun, cpu, pictures = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - begun < seconds:
            self.run(picked)
            pictures += batch
        return Cost((time.process_time() - cpu) / pictures, (time.perf_counter() - begun) / pictures)


def _keep(request: Any, place: tuple[Sequence[NDArray[np.float32]], int]) -> None:
    """Copy what a request found to where its picture belongs."""
    maps, i = place
    for whole, tensor in zip(maps, request.output_tensors, strict=True):
        whole[i] = tensor.data[0]
