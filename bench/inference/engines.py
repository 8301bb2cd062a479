"""Engines by their names, RUNTIME-PRECISION."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

import torch

from flows.fastflow.detector import Detector, pick_device
from flows.fastflow.engines import Engine, has_openvino, pick_engine, slower_here
from flows.fastflow.manifest import PRECISIONS, Precision
from flows.fastflow.scorer import Scorer

# There is a floor for each of them; FlowGauge itself computes on those that it has a precision for.
ENGINES = ("torch-float32", "torch-bfloat16", "openvino-float32", "openvino-bfloat16", "openvino-int8")


class EngineNameError(ValueError):
    """There is no such engine, or FlowGauge does not compute on it."""


def split(engine: str) -> tuple[str, str]:
    """Runtime and format of numbers.

    Raises:
        EngineNameError: there is no such engine.
    """
    if engine not in ENGINES:
        raise EngineNameError(f"there is no engine {engine!r}; there are: {', '.join(ENGINES)}")
    runtime, _, numbers = engine.partition("-")
    return runtime, numbers


def _precision_name(engine: str) -> str:
    """Whose calibration counts: engines of float32 share one, and so do torch's by the format alone."""
    runtime, numbers = split(engine)
    return numbers if runtime == "torch" or numbers == "float32" else engine


OURS = tuple(engine for engine in ENGINES if _precision_name(engine) in PRECISIONS)


def precision_of(engine: str) -> Precision:
    """Whose calibration counts on an engine.

    Raises:
        EngineNameError: there is no such engine, or FlowGauge does not compute on it.
    """
    name = _precision_name(engine)
    if name not in PRECISIONS:
        raise EngineNameError(f"FlowGauge does not compute on {engine}; it does on: {', '.join(OURS)}")
    return name


def default() -> str:
    """What a server on a CPU computes on where nobody says anything."""
    return "openvino-float32" if has_openvino() else "torch-float32"


def here(engines: Sequence[str], device: str) -> tuple[list[str], list[str]]:
    """Which engines can run here, and a line for each that cannot."""
    found, missing = [], []
    for engine in engines:
        runtime, numbers = split(engine)
        needed = [runtime, *(["nncf"] if numbers == "int8" else [])]
        absent = [name for name in needed if importlib.util.find_spec(name) is None]
        if device != "cpu" and runtime != "torch":
            missing.append(f"{engine} was left out: it computes on the CPU alone")
        elif absent:
            missing.append(f"{engine} was left out: not installed: {', '.join(absent)}")
        elif emulated(engine, device):
            missing.append(f"{engine} was left out: there are no instructions for bfloat16 here")
        else:
            found.append(engine)
    return found, missing


def emulated(engine: str, device: str) -> bool:
    """Whether nobody would choose an engine here: torch took half a second a picture on AVX2."""
    vain = device == "cpu" and slower_here("bfloat16", torch.device(device)) is not None
    return vain and engine.endswith("bfloat16")


def openvino_precisions() -> list[Precision]:
    """Those of OpenVINO's engines that this processor has instructions for."""
    return [
        precision_of(engine)
        for engine in OURS
        if split(engine)[0] == "openvino" and not emulated(engine, "cpu")
    ]


def pick(engine: str, device: str = "cpu") -> Engine:
    """What computes.

    Raises:
        EngineNameError: there is no such engine, or FlowGauge does not compute on it.
        EngineError, DeviceError: it is not here.
    """
    kind = cast(Literal["torch", "openvino"], split(engine)[0])
    return pick_engine(precision_of(engine), pick_device(device), kind)


def load(bundle: Path, engine: str, device: str = "cpu") -> Detector:
    """A bundle's detector on an engine.

    Raises:
        EngineNameError, EngineError, DeviceError: as `pick`.
        BundleError: the bundle was not calibrated for it.
    """
    return Detector.load(bundle, device=device, precision=precision_of(engine), engine=pick(engine, device))


def scorer(detector: Detector, engine: str) -> Scorer:
    """A detector's model on another engine, calibrated or not.

    Raises:
        EngineNameError, EngineError, DeviceError: as `pick`.
    """
    return detector.scorer.with_engine(pick(engine, str(detector.device)))


def server_settings(engine: str, threads: int) -> dict[str, str | int]:
    """Settings with which a server computes on an engine.

    Raises:
        EngineNameError: there is no such engine, or FlowGauge does not compute on it.
    """
    # A first request waits for a model to be loaded, perhaps on a busy machine: no reason to give up.
    patience = {"deadline_ms": 600_000}
    return {"precision": precision_of(engine), "engine": split(engine)[0], "threads": threads, **patience}


def served_name(engine: str) -> str:
    """What answers of such a server call it.

    Raises:
        EngineNameError: there is no such engine.
    """
    runtime, numbers = split(engine)
    return f"{runtime}-cpu-{numbers}"
