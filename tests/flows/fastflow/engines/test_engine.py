"""Who computes: what is asked for, or what fits the machine; never something else in silence."""

import pytest
import torch

from flows.fastflow.engines import engine
from flows.fastflow.engines.engine import EngineKind, describe_slow_precision, pick_engine
from flows.fastflow.engines.errors import EngineError
from flows.fastflow.manifest import PRECISIONS, Precision

pytestmark = pytest.mark.threads(2)

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("precision", "kind", "device", "name"),
    [
        ("float32", "torch", CPU, "torch-cpu-float32"),
        ("float32", "openvino", CPU, "openvino-cpu-float32"),
        ("float32", "auto", CPU, "openvino-cpu-float32"),
        ("float32", "auto", CUDA, "torch-cuda-float32"),
        ("bfloat16", "torch", CPU, "torch-cpu-bfloat16"),
        ("bfloat16", "auto", CPU, "torch-cpu-bfloat16"),
        ("bfloat16", "auto", CUDA, "torch-cuda-bfloat16"),
        ("openvino-bfloat16", "torch", CPU, "openvino-cpu-bfloat16"),
        ("openvino-bfloat16", "auto", CPU, "openvino-cpu-bfloat16"),
    ],
)
def test_engines_by_precision_kind_and_device(
    precision: Precision, kind: EngineKind, device: torch.device, name: str
) -> None:
    if name.startswith("openvino"):
        pytest.importorskip("openvino")
    engine = pick_engine(precision, device, kind)
    assert engine.name == name
    assert engine.precision == precision


def test_without_openvino_auto_is_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "has_openvino", lambda: False)
    assert pick_engine("float32", CPU, "auto").name == "torch-cpu-float32"


@pytest.mark.parametrize("precision", ["float32", "openvino-bfloat16"])
def test_asked_for_and_not_installed_it_is_missed(
    monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    monkeypatch.setattr(engine, "has_openvino", lambda: False)
    with pytest.raises(EngineError, match="pip install openvino"):
        pick_engine(precision, CPU, "openvino")


def test_openvino_is_not_asked_to_compute_on_a_gpu() -> None:
    with pytest.raises(EngineError, match="only on the CPU, not on cuda"):
        pick_engine("float32", CUDA, "openvino")


def test_bfloat16_of_torch_is_not_that_of_openvino() -> None:
    with pytest.raises(EngineError, match="openvino-bfloat16"):
        pick_engine("bfloat16", CPU, "openvino")


@pytest.mark.parametrize(("has", "slower"), [(False, True), (True, False)])
def test_precision_that_the_processor_has_not_is_slower(
    monkeypatch: pytest.MonkeyPatch, without_bfloat16: None, has: bool, slower: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has)
    assert describe_slow_precision("float32", CPU) is None
    for precision in set(PRECISIONS) - {"float32"}:
        why = describe_slow_precision(precision, CPU)
        assert (why is not None) == slower
        assert why is None or precision in why
