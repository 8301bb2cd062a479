"""The comparison on digits: equal sizes, the same counting of bits, and it runs."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("normflows")

from bench.flows.digits import Reader, families, sheet, their_flow
from bench.flows.models import parameters
from bench.flows.normflows_models import nf_glow, nf_real_nvp, width_as_large_as
from flows import Logit, UniformDequantization
from training.density.pictures import digits

ROOT = Path(__file__).parents[3]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", families(digits()))
def test_a_pair_has_the_same_size(name: str) -> None:
    family = families(digits())[name]
    ours = parameters(family.ours())
    width = width_as_large_as(family.theirs, ours, family.most)
    theirs = parameters(family.theirs(width))
    assert ours <= theirs < 1.1 * ours


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", families(digits()))
def test_a_pair_has_the_same_preprocessing(name: str) -> None:
    data = digits()
    family = families(data)[name]
    for flow in (family.ours(), their_flow(family.theirs(8), data)):
        modules = list(flow.modules())
        assert [m.levels for m in modules if isinstance(m, UniformDequantization)] == [17]
        assert [m.alpha for m in modules if isinstance(m, Logit)] == [0.01]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", families(digits()))
def test_theirs_is_a_density_whose_samples_are_digits(name: str) -> None:
    torch.manual_seed(0)
    data = digits()
    flow = their_flow(families(data)[name].theirs(8), data)
    flow.train()
    flow.log_prob(data.train[:32])  # sets activation normalisation
    flow.eval()
    assert flow.log_prob(data.test[:5]).shape == (5,)
    samples = flow.sample(6, temperature=0.5)
    assert samples.shape == (6, 1, 8, 8)
    assert samples.min() >= 0
    assert samples.max() <= 16


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("make", [nf_real_nvp, lambda *a, **k: nf_glow(*a, steps=2, **k)])
def test_theirs_counts_its_bits_right(make: type) -> None:
    """Their log-density against the determinant of an automatic Jacobian: the adapter lost nothing."""
    torch.manual_seed(0)
    density = make((1, 8, 8), 4, scales=2)
    density.log_prob(torch.randn(64, 1, 8, 8))
    for parameter in density.parameters():
        torch.nn.init.normal_(parameter, 0, 0.05)
    density.double().eval()
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64)

    def latents(flat: torch.Tensor) -> torch.Tensor:
        return torch.cat([z.flatten() for z in density.model.inverse_and_log_det(flat.view(1, 1, 8, 8))[0]])

    jacobian = torch.func.jacrev(latents)(x.flatten())
    parts = density.model.inverse_and_log_det(x)[0]
    base = sum(q0.log_prob(z) for q0, z in zip(density.model.q0, parts, strict=True))
    expected = base + torch.linalg.slogdet(jacobian)[1]
    assert torch.allclose(density.log_prob(x), expected, atol=1e-8)


def test_a_width_that_cannot_be_had_is_an_error() -> None:
    family = families(digits())["NICE"]
    with pytest.raises(ValueError, match=r"hidden width of 2 gives .* fewer than 1000000"):
        width_as_large_as(family.theirs, 1_000_000, 2)


def test_a_sheet_is_black_on_white_and_scaled_up() -> None:
    blank = torch.zeros(16, 1, 8, 8)
    pixels = sheet([blank, blank + 16], 17, scale=3)
    assert pixels.shape == (8 * 9 * 3, 2 * (2 * 9 + 4) * 3)
    assert pixels[0, 0] == 255
    assert pixels[0, (2 * 9 + 4) * 3] == 0


def test_the_reader_reads_digits_and_not_noise() -> None:
    data = digits()
    reader = Reader(data)
    share, classes = reader.readable(data.test)
    assert share > 0.6
    assert classes == 10
    noise = torch.randint(17, (300, 1, 8, 8), generator=torch.Generator().manual_seed(0)).float()
    assert reader.readable(noise)[0] == 0
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    assert reader.readable(data.test.flatten(1)[:, order].view_as(data.test))[0] == 0


def test_it_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "bench.flows.digits", "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "digits.json").read_text())
    for name in families(digits()):
        for whose in ("ours", "normflows"):
            assert math.isfinite(figures[f"{name}, {whose}"]["test"])
    assert (tmp_path / "digits.md").read_text().count("\n") == 3 + 8
    assert len(list(tmp_path.glob("*.png"))) == 8
