"""Device to compute on."""

import torch


def pick_device(name: str = "auto") -> torch.device:
    """Return the device for "auto" (CUDA if available), "cpu", "cuda" or "cuda:N".

    Raises:
        DeviceError: the device is unknown or not available.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"unknown device {name!r}; use auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"FlowGauge runs on cpu and cuda; got {name!r}")
    # torch stores the index in eight bits: 999 becomes -25.
    if device.type == "cuda" and not 0 <= (device.index or 0) < torch.cuda.device_count():
        raise DeviceError(
            f"{name!r} was asked for, but torch sees {torch.cuda.device_count()} CUDA devices; "
            "use --device auto or cpu"
        )
    if device.type == "cuda":
        # By default convolutions round to 10 bits (TF32) and may differ between runs. Matrix products round
        # only if another setting allows it.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.deterministic = True
    return device


class DeviceError(ValueError):
    """The requested device is unknown or not available."""
