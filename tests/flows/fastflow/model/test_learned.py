"""Descriptions of images for the learned part of a score."""

import torch
from torch import Tensor

from flows.fastflow.model.learned import describe, merge_descriptions

CHANNELS = (3, 2)


def scales(n: int, height: int) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Features and both energies of two scales, one of half the size."""
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(n, c, height >> i, 4, generator=generator) for i, c in enumerate(CHANNELS)]
    flow, gaussian = ([torch.rand(n, height >> i, 4, generator=generator) for i in range(2)] for _ in "ab")
    return features, flow, gaussian


def test_positions_weigh_by_both_energies() -> None:
    features, flow, gaussian = scales(2, 6)
    found = describe(features, flow, gaussian).double()
    means = torch.cat([x.double().mean((2, 3)) for x in features], 1)
    weights = [(q.double() * e.double()) ** 2 for q, e in zip(flow, gaussian, strict=True)]
    weighted = torch.cat(
        [
            (x.double() * w[:, None]).sum((2, 3)) / w.sum((1, 2))[:, None]
            for x, w in zip(features, weights, strict=True)
        ],
        1,
    )
    totals = torch.stack([w.sum((1, 2)) for w in weights], 1)
    torch.testing.assert_close(found, torch.cat([means, weighted, totals], 1), rtol=1e-5, atol=1e-6)


def test_extreme_energies_give_finite_descriptions() -> None:
    features, flow, gaussian = scales(2, 6)
    for factor in (0.0, 1e30):
        found = describe(features, [factor * q for q in flow], [factor * e for e in gaussian])
        assert found.isfinite().all()


def test_tiles_are_merged_to_the_description_of_the_whole() -> None:
    features, flow, gaussian = scales(1, 8)
    halves = [
        describe(
            [x.chunk(2, 2)[i] for x in features],
            [q.chunk(2, 1)[i] for q in flow],
            [e.chunk(2, 1)[i] for e in gaussian],
        )
        for i in range(2)
    ]
    merged = merge_descriptions(torch.cat(halves), CHANNELS)
    torch.testing.assert_close(merged, describe(features, flow, gaussian), rtol=1e-5, atol=1e-6)
