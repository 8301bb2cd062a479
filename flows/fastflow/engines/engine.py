"""Who computes backbones, heads and pixels: torch anywhere, OpenVINO on CPUs.

An engine changes how fast a score comes, never what it means: engines of the precision float32 agree to 1e-3,
which golden pictures check, and those that round are calibrated by themselves.
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
    """Computes backbones, heads and pixels in its own way.

    What it returns may be called from one thread at a time.

    Attributes:
        name: as answers name it, such as "openvino-cpu-float32".
        precision: whose calibration counts for its scores.
        batches: sizes of batches that it prepares heads for, the first time that each is met, and that a
            start should wait for; other sizes `HeadRunner.specialise` prepares.
    """

    name: str
    precision: Precision
    batches: tuple[int, ...]

    def backbone(self, extractor: FrozenBackbone, input_size: tuple[int, int]) -> "BackboneRunner":
        """What computes the maps of `extractor`, of images of one size, (H, W).

        Raises:
            EngineError: the engine cannot compute this backbone.
            WeightsError, BundleError: as `RecordedBackbone.layers`.
        """

    def head(self, head: Head) -> "HeadRunner":
        """A head, ready to compute; it must not change after."""

    def pixels(self, rule: ScoreRule, size: tuple[int, int]) -> Callable[[Energies], Iterable[PixelPlanes]]:
        """What makes pixels of the energies of N inputs of one size, (height, width), on a CPU.

        Pixels may be written over.
        """


class BackboneRunner(Protocol):
    """Computes a backbone's maps.

    Attributes:
        batches: sizes of batches after which it is ready for all.
        nbytes: memory of the weights that it holds, which it may share with others of the same backbone.
    """

    batches: tuple[int, ...]
    nbytes: int

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Per scale (N, C_i, H_i, W_i) float32, of images (N, H, W, 3) uint8 RGB."""


class HeadRunner(Protocol):
    """Computes what a head finds in the maps that the same engine's backbone gives.

    Attributes:
        nbytes: memory of the weights that it holds, those too that it shares with the head.
    """

    nbytes: int

    def specialise(self, sizes: Sequence[tuple[int, ...]]) -> None:
        """Compile what no start waits for: for other sizes of batch, and for this head alone.

        The latter where that is faster and there is room for it; it takes seconds.

        May be called while another thread computes. Results after it may differ by roundings.

        Args:
            sizes: of one picture's maps, (C_i, H_i, W_i).
        """

    def __call__(self, maps: Sequence[Tensor]) -> Energies:
        """Energies of raw feature maps, per scale (N, C_i, H_i, W_i), finest first."""


def pick_engine(
    precision: Precision, device: torch.device, kind: EngineKind = "torch", cache: Path | None = None
) -> Engine:
    """The engine to use.

    Args:
        precision: whose calibration shall count; one that names its engine needs no `kind`.
        device: where to compute.
        kind: "auto" is OpenVINO for float32 on a CPU, where it is installed, and else torch.
        cache: a folder for converted backbones, so that the next start need not convert them again.

    Raises:
        EngineError: it is not installed, or not made for that device or precision.
    """
    if kind == "auto":
        kind = "openvino" if precision == "float32" and device.type == "cpu" and has_openvino() else "torch"
    if precision == "openvino-bfloat16":
        kind = "openvino"
    if kind == "torch":
        return TorchEngine(precision, device)
    if precision == "bfloat16":
        raise EngineError(
            "bfloat16 is torch's; OpenVINO, which rounds in other places, has openvino-bfloat16"
        )
    if device.type != "cpu":
        raise EngineError(f"OpenVINO computes on the CPU here, not on {device}; use the engine torch")
    if not has_openvino():
        raise EngineError("OpenVINO is not installed: pip install openvino, or use the engine torch")
    from flows.fastflow.engines.openvino.engine import OpenVinoEngine

    return OpenVinoEngine(precision, cache)


def supports_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16; without them it would be slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def describe_slow_precision(precision: Precision, device: torch.device) -> str | None:
    """Why a precision that is there for speed has none on this device; None where it may have some."""
    # Of other processors than these we do not know.
    known = device.type == "cuda" or platform.machine().lower() in ("x86_64", "amd64")
    if precision == "float32" or not known or supports_bfloat16(device):
        return None
    slower, here = "takes several times as long as", "processor"
    if device.type == "cuda":
        slower, here = "is slower than", "GPU"
    return f"{precision} {slower} float32 on this {here}, which has no instructions for bfloat16; use float32"


def has_openvino() -> bool:
    """Whether OpenVINO is installed."""
    return find_spec("openvino") is not None
