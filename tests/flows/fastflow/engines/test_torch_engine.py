"""Torch as an engine: flows in fewer bits where asked for, all else in float32."""

from collections import defaultdict

import pytest
import torch
from torch import Tensor, nn

from flows.fastflow.backbones.features import FeatureExtractor
from flows.fastflow.config import FlowConfig
from flows.fastflow.engines.engine import pick_engine
from tests.flows.fastflow.model.test_fused import NORMALISATIONS, made, maps

CPU = torch.device("cpu")


def test_of_bfloat16_only_the_flows_are_rounded() -> None:
    head = made(FlowConfig(steps=2), NORMALISATIONS[0])
    raw = maps()
    exact, found = (pick_engine(precision, CPU).head(head)(raw) for precision in ("float32", "bfloat16"))
    for a, b in zip(found.flow, exact.flow, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0.1, atol=0.05)
        assert not torch.equal(a, b)
    for a, b in zip((*found.gaussian, *found[2:5]), (*exact.gaussian, *exact[2:5]), strict=True):
        assert torch.equal(a, b)


class TestFirstLayers:
    SIZE = (64, 64)

    def seen(self, extractor: FeatureExtractor) -> tuple[list[Tensor], dict[int, set[torch.dtype]]]:
        """What it gives, and what its convolutions gave by the height of what came in."""
        given: dict[int, set[torch.dtype]] = defaultdict(set)

        def look(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            given[inputs[0].shape[2]].add(output.dtype)

        handles = [m.register_forward_hook(look) for m in extractor.modules() if isinstance(m, nn.Conv2d)]
        images = torch.randint(0, 256, (2, *self.SIZE, 3), dtype=torch.uint8)
        try:
            running = pick_engine("bfloat16", CPU).backbone(extractor, self.SIZE)
            maps = running(images)
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

    def test_are_as_many_where_the_sides_are_no_multiples_of_four(
        self, tiny_extractor: FeatureExtractor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(self, "SIZE", (61, 50))
        _, given = self.seen(tiny_extractor)
        assert {side for side, dtypes in given.items() if dtypes == {torch.float32}} == {61, 31}
        assert given[16] == {torch.bfloat16}
