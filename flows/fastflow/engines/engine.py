"""Engines, which compute backbones, heads and pixels: torch on any device, OpenVINO on CPUs.

An engine changes the speed of a score, not its meaning. Engines of the precision float32 agree to 1e-3, and
golden images check that. Engines of reduced precision have their own calibration.
"""

import platform
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import torch
from torch import Tensor

from flows.fastflow.backbones.recorded import FrozenBackbone
from flows.fastflow.config import ScoreRule
from flows.fastflow.engines.errors import EngineError
from flows.fastflow.engines.torch_engine import TorchEngine
from flows.fastflow.manifest import Precision
from flows.fastflow.model.fused import Energies
from flows.fastflow.model.head import Head
from flows.fastflow.scoring.cpu_scoring import PixelPlanes

EngineKind: TypeAlias = Literal["auto", "torch", "openvino"]


class Engine(Protocol):
    """Interface of an engine.

    Call its runners from one thread at a time.

    Attributes:
        name: name in answers, such as "openvino-cpu-float32".
        precision: precision whose calibration applies to its scores.
        batches: batch sizes that it prepares heads for at first use, and that a start should wait for;
            `HeadRunner.specialise` prepares the others.
    """

    name: str
    precision: Precision
    batches: tuple[int, ...]

    def backbone(self, extractor: FrozenBackbone, input_size: tuple[int, int]) -> "BackboneRunner":
        """Prepare a backbone for images of one size, (H, W).

        Raises:
            EngineError: the engine cannot compute this backbone.
            WeightsError, BundleError: see `RecordedBackbone.layers`.
        """

    def head(self, head: Head, *, describes: bool = False) -> "HeadRunner":
        """Prepare a head, which must not change afterwards.

        Args:
            describes: see `FusedHead`.
        """

    def pixels(self, rule: ScoreRule, size: tuple[int, int]) -> Callable[[Energies], Iterable[PixelPlanes]]:
        """Prepare the step from energies of N inputs of one size, (height, width), to pixels on a CPU.

        Callers may overwrite the pixels.
        """


class BackboneRunner(Protocol):
    """Interface to compute a backbone's maps.

    Attributes:
        batches: batch sizes to run once before it is ready for all sizes.
        nbytes: memory of its weights, possibly shared with other runners of the same backbone.
    """

    batches: tuple[int, ...]
    nbytes: int

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Map images (N, H, W, 3) uint8 RGB to (N, C_i, H_i, W_i) float32 per scale."""


class HeadRunner(Protocol):
    """Interface to compute a head's energies from maps of the same engine.

    Attributes:
        nbytes: memory of its weights, including those shared with the head.
    """

    nbytes: int

    def specialise(self, sizes: Sequence[tuple[int, ...]]) -> None:
        """Compile for other batch sizes and, if it is faster and memory allows, for this head alone.

        It takes seconds, may run while another thread computes, and may change results by rounding.

        Args:
            sizes: sizes of one image's maps, (C_i, H_i, W_i).
        """

    def __call__(self, maps: Sequence[Tensor]) -> Energies:
        """Compute energies from raw feature maps, per scale (N, C_i, H_i, W_i), finest first."""


def pick_engine(
    precision: Precision, device: torch.device, kind: EngineKind = "torch", cache: Path | None = None
) -> Engine:
    """Create the engine for a precision and a device.

    Args:
        precision: precision of the scores; one that contains an engine's name needs no `kind`.
        kind: "auto" is OpenVINO, if it is installed, for float32 on a CPU, and torch otherwise.
        cache: folder that keeps converted backbones for the next start.

    Raises:
        EngineError: the engine is not installed, or does not support the device or precision.
    """
    if kind == "auto":
        kind = "openvino" if precision == "float32" and device.type == "cpu" and has_openvino() else "torch"
    if precision == "openvino-bfloat16":
        kind = "openvino"
    if kind == "torch":
        return TorchEngine(precision, device)
    if precision == "bfloat16":
        raise EngineError(
            "the precision bfloat16 belongs to torch; OpenVINO rounds in other places, use openvino-bfloat16"
        )
    if device.type != "cpu":
        raise EngineError(f"OpenVINO computes only on the CPU, not on {device}; use the engine torch")
    if not has_openvino():
        raise EngineError("OpenVINO is not installed: pip install openvino, or use the engine torch")
    from flows.fastflow.engines.openvino.engine import OpenVinoEngine

    return OpenVinoEngine(precision, cache)


def supports_bfloat16(device: torch.device) -> bool:
    """Check that a device has instructions for bfloat16; without them float32 is faster."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def describe_slow_precision(precision: Precision, device: torch.device) -> str | None:
    """Explain why a reduced precision is slow on this device; None if it may be faster."""
    # The support of other processors is unknown.
    is_known = device.type == "cuda" or platform.machine().lower() in ("x86_64", "amd64")
    if precision == "float32" or not is_known or supports_bfloat16(device):
        return None
    slower, unit = "takes several times as long as", "processor"
    if device.type == "cuda":
        slower, unit = "is slower than", "GPU"
    return f"{precision} {slower} float32 on this {unit}, which has no instructions for bfloat16; use float32"


def has_openvino() -> bool:
    return find_spec("openvino") is not None
