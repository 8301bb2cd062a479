"""Torch as an engine: flows in fewer bits where asked for, all else in float32."""

import torch

from flows.fastflow.engines import pick_engine
from flows.fastflow.fused import FusedHead
from flows.fastflow.model import FlowConfig
from tests.flows.fastflow.test_fused import NORMALISATIONS, made, maps

CPU = torch.device("cpu")


def test_of_bfloat16_only_the_flows_are_rounded() -> None:
    head = made(FlowConfig(steps=2), NORMALISATIONS[0])
    raw = maps()
    exact, found = FusedHead(head)(raw), pick_engine("bfloat16", CPU).head(head)(raw)
    for a, b in zip(found.flow, exact.flow, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0.1, atol=0.05)
        assert not torch.equal(a, b)
    for a, b in zip((*found.gaussian, *found[2:]), (*exact.gaussian, *exact[2:]), strict=True):
        assert torch.equal(a, b)


def test_weights_are_laid_out_for_computing_and_the_heads_stay_as_they_are() -> None:
    head = made(FlowConfig(steps=2), NORMALISATIONS[0])
    before = {name: value.clone() for name, value in head.state_dict().items()}
    running = pick_engine("float32", CPU).head(head)
    assert running.nbytes > 0
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())
    torch.testing.assert_close(running(maps()).picture, FusedHead(head)(maps()).picture)
