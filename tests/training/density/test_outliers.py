"""Each score against its definition, worked out in another way."""

import math
from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from flows import Compose, Flow, Scaling, StandardNormal, UniformDequantization
from training.density.named import arguments, build
from training.density.outliers import (
    auroc,
    complexity_ratio,
    latent_surprise,
    likelihood_ratio,
    negative_log_likelihood,
    perturbed,
    typicality,
)
from training.density.pictures import digits


def small_flow(log_scale: float = 0.0) -> Flow:
    scaling = Scaling(1)
    torch.nn.init.constant_(scaling.log_scale, log_scale)
    return Flow(Compose([UniformDequantization(4), scaling]), StandardNormal((1, 2, 2))).eval()


def pictures(count: int = 6) -> Tensor:
    return torch.randint(4, (count, 1, 2, 2), generator=torch.Generator().manual_seed(0)).float()


def test_the_likelihood_is_a_mean_over_draws() -> None:
    flow, x = small_flow(0.3), pictures()
    found = negative_log_likelihood(flow, x, draws=3000, seed=7)
    torch.manual_seed(7)
    with torch.no_grad():
        expected = -torch.stack([flow.log_prob(x).double() for _ in range(3000)]).mean(0)
    one = negative_log_likelihood(flow, x, draws=1, seed=7)
    assert torch.allclose(found, expected, atol=0.03)
    assert not torch.allclose(one, expected, atol=0.03)
    assert found.dtype == torch.float64


@pytest.mark.parametrize("score", [negative_log_likelihood, latent_surprise])
def test_a_score_depends_on_no_other_picture(score: Callable[..., Tensor]) -> None:
    torch.manual_seed(0)
    flow, x = build("glow", (1, 8, 8), 17, arguments("glow", hidden=8, depth=1)).eval(), digits().test[:40]
    together = score(flow, x)
    torch.testing.assert_close(score(flow, x[7:]), together[7:], rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(score(flow, x.flip(0)), together.flip(0), rtol=1e-6, atol=1e-4)
    # And noise is each picture's own: one for all would leave their mean as uncertain as a single score.
    first, second = (score(small_flow(0.5), pictures(400), draws=1, seed=seed) for seed in (0, 1))
    assert abs(first.mean() - second.mean()) < (first - second).std() / 4


def test_a_flow_over_real_numbers_has_no_score() -> None:
    for flow in (
        Flow(Scaling(1), StandardNormal((1, 2, 2))),
        Flow(Compose([Scaling(1)]), StandardNormal((1,))),
    ):
        with pytest.raises(ValueError, match="begins with UniformDequantization"):
            negative_log_likelihood(flow, pictures())


@pytest.mark.parametrize("score", [negative_log_likelihood, latent_surprise])
@pytest.mark.parametrize(("value", "said"), [(0.5, "0.5"), (4.0, "4"), (-1.0, "-1"), (math.nan, "nan")])
def test_pictures_of_other_values_have_no_score(
    score: Callable[..., Tensor], value: float, said: str
) -> None:
    x = pictures()
    x[2, 0, 1, 0] = x[3, 0, 0, 0] = value
    said = f"^row 2 of the pictures has the value {said}; the flow takes integers 0 ... 3$"
    with pytest.raises(ValueError, match=said):
        score(small_flow(), x)


def test_the_seed_decides_and_the_callers_numbers_stay() -> None:
    flow, x = small_flow(), pictures()
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first = negative_log_likelihood(flow, x)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first, negative_log_likelihood(flow, x))
    assert not torch.equal(first, negative_log_likelihood(flow, x, seed=1))


def test_large_pictures_are_scored_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    flow, x = small_flow(), pictures()
    sizes: list[int] = []
    log_prob = flow.base.log_prob

    def counted(batch: Tensor, context: Tensor | None) -> Tensor:
        sizes.append(len(batch))
        return log_prob(batch, context)

    monkeypatch.setattr(flow.base, "log_prob", counted)
    monkeypatch.setattr("training.density.fit._ELEMENTS", 4 * 4)
    assert len(negative_log_likelihood(flow, x, draws=2)) == 6
    assert sizes == [4, 4, 2, 2]


def test_latent_surprise_leaves_the_volume_out() -> None:
    x = pictures()
    for log_scale in (0.0, 1.5):
        flow = small_flow(log_scale)
        difference = negative_log_likelihood(flow, x) - latent_surprise(flow, x)
        assert torch.allclose(
            difference, torch.full_like(difference, 4 * (math.log(4) - log_scale)), atol=1e-5
        )


def test_typicality_is_two_sided() -> None:
    found = typicality(torch.tensor([1.0, 3.0, 6.0]), torch.tensor([2.0, 4.0]))
    assert found.tolist() == [2.0, 0.0, 3.0]
    with pytest.raises(ValueError, match="got none"):
        typicality(torch.zeros(1), torch.zeros(0))


def test_a_background_takes_off_what_it_explains() -> None:
    assert likelihood_ratio(torch.tensor([5.0, 2.0]), torch.tensor([4.0, 3.0])).tolist() == [1.0, -1.0]


def test_perturbed_replaces_at_its_rate() -> None:
    x = torch.full((2000, 1, 4, 4), 3.0)
    found = perturbed(x, 8, 0.25, generator=torch.Generator().manual_seed(0))
    changed = (found != x).float().mean().item()
    assert changed == pytest.approx(0.25 * 7 / 8, abs=0.01)
    assert set(found[found != x].tolist()) == {0, 1, 2, 4, 5, 6, 7}
    assert torch.equal(perturbed(x, 8, 0.0), x)
    with pytest.raises(ValueError, match="rate"):
        perturbed(x, 8, 1.5)


def test_complexity_is_the_size_of_the_png() -> None:
    rng = torch.Generator().manual_seed(0)
    noisy = torch.randint(256, (1, 3, 16, 16), generator=rng).float()
    x = torch.cat([torch.zeros_like(noisy), noisy])
    sizes = -complexity_ratio(torch.zeros(2), x, 256)
    assert sizes[0] < sizes[1]
    _, data = cv2.imencode(
        ".png", noisy[0].permute(1, 2, 0).numpy().astype(np.uint8), [cv2.IMWRITE_PNG_COMPRESSION, 9]
    )
    assert sizes[1].item() == 8 * len(data)
    one_nat = complexity_ratio(torch.ones(2), x, 256) + sizes
    assert torch.allclose(one_nat, torch.full_like(one_nat, 1 / math.log(2)))


@pytest.mark.parametrize(("channels", "levels"), [(2, 17), (1, 257), (1, 1)])
def test_what_no_png_can_hold_is_refused(channels: int, levels: int) -> None:
    with pytest.raises(ValueError, match="PNG"):
        complexity_ratio(torch.zeros(1), torch.zeros(1, channels, 4, 4), levels)


def test_auroc_counts_pairs() -> None:
    ordinary, strange = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0])
    pairs = [(s > o) + 0.5 * (s == o) for s in strange.tolist() for o in ordinary.tolist()]
    assert auroc(ordinary, strange) == pytest.approx(sum(pairs) / len(pairs))
    assert auroc(ordinary, torch.tensor([math.inf])) == 1.0
    with pytest.raises(ValueError, match="both kinds; got 3 and 0"):
        auroc(ordinary, torch.zeros(0))
    with pytest.raises(ValueError, match="1 of 4 scores are not a number"):
        auroc(ordinary, torch.tensor([math.nan]))


def test_no_draws_are_no_likelihood() -> None:
    with pytest.raises(ValueError, match="at least 1 draw"):
        negative_log_likelihood(small_flow(), pictures(), draws=0)
