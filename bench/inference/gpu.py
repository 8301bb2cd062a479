"""Whether there is a GPU to measure on."""

from collections.abc import Iterable

import torch


class GpuError(ValueError):
    """There is no GPU, or nothing to measure on it."""


# The others serve on the CPU.
PARTS = {"model", "anomalib"}


def gpu_for(parts: Iterable[str]) -> str:
    """What torch calls the first CUDA device, for parts of the bench.

    Raises:
        GpuError: there is none, or one of the parts does not use it.
    """
    if strange := sorted(set(parts) - PARTS):
        raise GpuError(f"on a GPU there are the parts model and anomalib; got {', '.join(strange)}")
    if not torch.cuda.is_available():
        raise GpuError(
            f"there is no GPU: torch {torch.__version__} sees no CUDA device. A GPU needs its driver and a "
            "build of torch for CUDA; `make bench` measures without one"
        )
    return torch.cuda.get_device_name()
