"""Device to compute on."""

import torch


def pick_device(name: str = "auto") -> torch.device:
    """The device for "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:N".

    Raises:
        DeviceError: it is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"{name!r} is no device; use auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"FlowGauge runs on cpu and cuda; got {name!r}")
    # torch keeps an index in eight bits: of 999 it makes -25.
    if device.type == "cuda" and not 0 <= (device.index or 0) < torch.cuda.device_count():
        raise DeviceError(
            f"{name!r} was asked for, but torch sees {torch.cuda.device_count()} CUDA devices; "
            "use --device auto or cpu"
        )
    if device.type == "cuda":
        # By default convolutions there round to 10 bits (TF32), and may differ from run to run; products of
        # matrices round where somebody has asked for it.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.deterministic = True
    return device


class DeviceError(ValueError):
    """The device asked for is not there."""
