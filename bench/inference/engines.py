"""Engines by their names, RUNTIME-PRECISION."""

from pathlib import Path
from typing import Literal, cast

import torch

from flows.fastflow.detector import Detector, pick_device
from flows.fastflow.engines import has_openvino, pick_engine, slower_here
from flows.fastflow.manifest import Precision

ENGINES = ("torch-float32", "torch-bfloat16", "openvino-float32", "openvino-bfloat16")


class EngineNameError(ValueError):
    """There is no such engine."""


def split(engine: str) -> tuple[Literal["torch", "openvino"], str]:
    """Runtime and format of numbers.

    Raises:
        EngineNameError: there is no such engine.
    """
    if engine not in ENGINES:
        raise EngineNameError(f"there is no engine {engine!r}; there are: {', '.join(ENGINES)}")
    runtime, _, numbers = engine.partition("-")
    return cast(Literal["torch", "openvino"], runtime), numbers


def precision_of(engine: str) -> Precision:
    """Whose calibration counts: engines in float32 share one, and torch's has the name of its format."""
    runtime, numbers = split(engine)
    return cast(Precision, numbers if runtime == "torch" or numbers == "float32" else engine)


def default() -> str:
    """The engine that a server on a CPU chooses by itself."""
    return "openvino-float32" if has_openvino() else "torch-float32"


def available(device: str) -> tuple[list[str], list[str]]:
    """Engines that can run here, and a line for each that cannot."""
    found, missing = [], []
    # Emulated, bfloat16 takes torch half a second an image on AVX2.
    emulated = device == "cpu" and slower_here("bfloat16", torch.device(device)) is not None
    for engine in ENGINES:
        runtime, _ = split(engine)
        if device != "cpu" and runtime != "torch":
            missing.append(f"{engine} was left out: it computes on the CPU alone")
        elif runtime == "openvino" and not has_openvino():
            missing.append(f"{engine} was left out: openvino is not installed")
        elif emulated and engine.endswith("bfloat16"):
            missing.append(f"{engine} was left out: there are no instructions for bfloat16 here")
        else:
            found.append(engine)
    return found, missing


def load(bundle: Path, engine: str, device: str = "cpu") -> Detector:
    """Load a bundle's detector on an engine, as ready as in the service."""
    precision, runtime = precision_of(engine), split(engine)[0]
    chosen = pick_engine(precision, pick_device(device), runtime)
    detector = Detector.load(bundle, device=device, precision=precision, engine=chosen)
    detector.scorer.warm_up()
    detector.scorer.specialise()
    return detector


def server_settings(engine: str, threads: int) -> dict[str, str | int]:
    """Settings with which a server computes on an engine; the deadline is for a slow first load."""
    names = {"precision": precision_of(engine), "engine": split(engine)[0]}
    return {**names, "threads": threads, "deadline_ms": 600_000}
