"""Torch as an engine: flows in fewer bits where asked for, all else in float32."""

from collections import defaultdict

import pytest
import torch
from torch import Tensor, nn

from flows.fastflow.engines import pick_engine
from flows.fastflow.features import FeatureExtractor
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


class TestFirstLayers:
    """Of a backbone in bfloat16."""

    SIZE = (64, 64)

    def seen(self, extractor: FeatureExtractor) -> tuple[list[Tensor], dict[int, set[torch.dtype]]]:
        """What it gives, and what its convolutions gave by the height of what came in."""
        given: dict[int, set[torch.dtype]] = defaultdict(set)

        def look(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            given[inputs[0].shape[2]].add(output.dtype)

        handles = [m.register_forward_hook(look) for m in extractor.modules() if isinstance(m, nn.Conv2d)]
        images = torch.randint(0, 256, (2, *self.SIZE, 3), dtype=torch.uint8)
        try:
            maps = pick_engine("bfloat16", CPU).backbone(extractor, self.SIZE)(images)
        finally:
            for handle in handles:
                handle.remove()
        return maps, given

    def test_are_computed_in_float32(self, tiny_extractor: FeatureExtractor) -> None:
        maps, given = self.seen(tiny_extractor)
        assert all(m.dtype == torch.float32 for m in maps)
        large = {side for side in given if 4 * side > self.SIZE[0]}
        assert large
        assert large < given.keys()
        for side, dtypes in given.items():
            assert dtypes == {torch.float32 if side in large else torch.bfloat16}

    def test_and_nothing_of_it_stays_behind(self, tiny_extractor: FeatureExtractor) -> None:
        images = torch.randint(0, 256, (2, *self.SIZE, 3), dtype=torch.uint8)
        before = tiny_extractor(images)
        self.seen(tiny_extractor)
        assert not torch.is_autocast_enabled("cpu")
        assert all(torch.equal(a, b) for a, b in zip(tiny_extractor(images), before, strict=True))

    def test_nor_after_a_failure(
        self, tiny_extractor: FeatureExtractor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise RuntimeError("no memory")

        conv = next(m for m in tiny_extractor.modules() if isinstance(m, nn.Conv2d))
        images = torch.randint(0, 256, (1, *self.SIZE, 3), dtype=torch.uint8)
        run = pick_engine("bfloat16", CPU).backbone(tiny_extractor, self.SIZE)
        with monkeypatch.context() as patch:
            patch.setattr(conv, "forward", fail)
            with pytest.raises(RuntimeError, match="no memory"):
                run(images)
        assert not torch.is_autocast_enabled("cpu")
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in tiny_extractor.modules())
