"""Engines by name: RUNTIME-PRECISION, such as openvino-float32."""

from pathlib import Path
from typing import Literal, cast

import torch

from flows.fastflow.detector import Detector
from flows.fastflow.engines.device import pick_device
from flows.fastflow.engines.engine import describe_slow_precision, has_openvino, pick_engine
from flows.fastflow.manifest import Precision

ENGINES = ("torch-float32", "torch-bfloat16", "openvino-float32", "openvino-bfloat16")


class EngineNameError(ValueError):
    """No engine has this name."""


def split(engine: str) -> tuple[Literal["torch", "openvino"], str]:
    """Split a name into runtime and number format.

    Raises:
        EngineNameError: no engine has this name.
    """
    if engine not in ENGINES:
        raise EngineNameError(f"unknown engine {engine!r}; use one of {', '.join(ENGINES)}")
    runtime, _, numbers = engine.partition("-")
    return cast(Literal["torch", "openvino"], runtime), numbers


def precision_of(engine: str) -> Precision:
    """Return the precision whose calibration an engine uses; engines in float32 share one."""
    runtime, numbers = split(engine)
    return cast(Precision, numbers if runtime == "torch" or numbers == "float32" else engine)


def default() -> str:
    """Return the engine that a server on a CPU chooses."""
    return "openvino-float32" if has_openvino() else "torch-float32"


def available(device: str) -> tuple[list[str], list[str]]:
    """Return the engines that can run here, and a sentence for each that cannot."""
    found, missing = [], []
    # With emulated bfloat16, torch takes half a second an image on AVX2.
    emulated = device == "cpu" and describe_slow_precision("bfloat16", torch.device(device)) is not None
    for engine in ENGINES:
        runtime, _ = split(engine)
        if device != "cpu" and runtime != "torch":
            missing.append(f"{engine} was left out: it runs on a CPU only")
        elif runtime == "openvino" and not has_openvino():
            missing.append(f"{engine} was left out: openvino is not installed")
        elif emulated and engine.endswith("bfloat16"):
            missing.append(f"{engine} was left out: this processor has no bfloat16 instructions")
        else:
            found.append(engine)
    return found, missing


def load(bundle: Path, engine: str, device: str = "cpu") -> Detector:
    """Load a bundle's detector on an engine and warm it up as the service does."""
    precision, runtime = precision_of(engine), split(engine)[0]
    chosen = pick_engine(precision, pick_device(device), runtime)
    detector = Detector.load(bundle, device=device, precision=precision, engine=chosen)
    detector.scorer.warm_up()
    detector.scorer.specialise()
    return detector


def server_settings(engine: str, threads: int) -> dict[str, str | int]:
    """Return the settings of a server on an engine, with a deadline for a slow first load."""
    names = {"precision": precision_of(engine), "engine": split(engine)[0]}
    return {**names, "threads": threads, "deadline_ms": 600_000}
