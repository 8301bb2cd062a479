"""Saved flows: bit-identical when read, and refused when damaged."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from flows import Flow
from training.density import saved_flow
from training.density.flow_record import DataSource, FitRecord, FlowRecord
from training.density.named_recipes import RECIPES, arguments, build
from training.density.saved_flow import SavedFlowError

SETTINGS = FitRecord(steps=1, batch_size=1, learning_rate=0.1, seed=0, device="cpu", seconds=0.0)
DATA = DataSource(source="digits", train=3, validation=2, test=1, fingerprint="0" * 64)


def write(folder: Path, recipe: str, *, hidden: int = 8, overwrite: bool = False) -> torch.nn.Module:
    """Save a flow of random weights, none of them the fresh ones."""
    chosen = arguments(recipe, hidden=hidden, depth=1)
    flow = build(recipe, (1, 8, 8), 17, chosen)
    with torch.no_grad():
        flow.train().log_prob(torch.randint(17, (32, 1, 8, 8)).float())  # sets the activation normalisation
        for parameter in flow.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    shape: dict[str, Any] = {"event_shape": (1, 8, 8), "levels": 17, "validation_bits_per_dim": 2.5}
    record = FlowRecord(recipe=recipe, arguments=chosen, data=DATA, settings=SETTINGS, **shape)
    with saved_flow.new_run(folder, overwrite=overwrite) as new:
        saved_flow.save(new, flow, record)
    return flow.eval()


def drawn(flow: Flow, number: int) -> torch.Tensor:
    return torch.cat(list(saved_flow.draw(flow, number, seed=1)))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "run"
    write(folder, "glow")
    return folder


@pytest.fixture
def run(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "run")


def edit(run: Path, **changes: Any) -> None:
    record = json.loads((run / "recipe.json").read_text())
    (run / "recipe.json").write_text(json.dumps(record | changes))


def reweigh(run: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Other weights under their own hash, as if somebody had put together two runs."""
    data = save(tensors)
    (run / "flow.safetensors").write_bytes(data)
    edit(run, weights_sha256=hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("recipe", RECIPES)
def test_loaded_flow_is_bit_identical(tmp_path: Path, recipe: str) -> None:
    flow = write(tmp_path / "run", recipe)
    before = torch.get_rng_state()
    loaded = saved_flow.load(tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), before)
    assert not loaded.flow.training
    x = torch.randint(17, (5, 1, 8, 8)).float()
    values = []
    for density in (flow, loaded.flow):
        torch.manual_seed(0)  # of the dequantisation
        with torch.no_grad():
            values.append(density.log_prob(x))  # type: ignore[operator]
    assert values[0].isfinite().all()
    assert torch.equal(*values)
    assert torch.equal(drawn(flow, 3), drawn(loaded.flow, 3))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"recipe": "ffjord"}, "there is no recipe 'ffjord'; there are: nice, "),
        ({"format": 4}, "is damaged: format: Input should be 1"),
        ({"levels": 1}, "is damaged: levels: "),
        ({"arguments": {"hidden": 10**12}}, "is damaged: arguments.hidden"),
        ({"arguments": {"colour": 1}}, "recipe.json: the recipe glow takes no colour"),
        ({"arguments": {"hidden": [8, 8]}}, "recipe.json: the recipe glow cannot be built: "),
        ({"event_shape": [1, 16, 16]}, "flow.safetensors does not fit its recipe: base.log_deviation should"),
        ({"arguments": {"steps": 2, "hidden": 8}}, "flow.safetensors does not fit its recipe: it lacks "),
        ({"weights_sha256": "0" * 64}, "is damaged: its sha256 is not the one in recipe.json"),
    ],
)
def test_changed_recipe_is_refused(run: Path, changes: dict[str, Any], said: str) -> None:
    edit(run, **changes)
    with pytest.raises(SavedFlowError) as raised:
        saved_flow.load(run)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_weights_of_another_flow_are_refused(run: Path) -> None:
    tensors = load((run / "flow.safetensors").read_bytes())
    name = "base.mean"
    for changed, said in (
        ({**tensors, "extra": torch.zeros(1)}, "it holds an unknown extra"),
        ({k: v for k, v in tensors.items() if k != name}, "it lacks base.mean"),
        ({**tensors, name: torch.zeros(2)}, r"base.mean should be (1, 8, 8) of float32; got (2,) of float32"),
        ({**tensors, name: tensors[name].double()}, "(1, 8, 8) of float32; got (1, 8, 8) of float64"),
    ):
        reweigh(run, changed)
        with pytest.raises(SavedFlowError) as raised:
            saved_flow.load(run)
        assert said in str(raised.value)


@pytest.mark.parametrize("name", ["recipe.json", "flow.safetensors"])
def test_missing_or_cut_file_is_named(run: Path, name: str) -> None:
    data = (run / name).read_bytes()
    (run / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(SavedFlowError, match=rf"{name} is damaged"):
        saved_flow.load(run)
    (run / name).unlink()
    with pytest.raises(SavedFlowError, match=rf"{name} is missing; .* is no fitted flow, or not a whole one"):
        saved_flow.load(run)
    (run / name).symlink_to("/dev/zero")
    with pytest.raises(SavedFlowError, match="is a link, not a file"):
        saved_flow.load(run)


def fill(folder: Path, meanwhile: Callable[[], None]) -> Path:
    with saved_flow.new_run(folder, overwrite=True) as new:
        (new / "recipe.json").write_text("half")
        meanwhile()
    return folder


def test_failed_write_keeps_the_earlier_run(run: Path) -> None:
    def fail() -> None:
        raise RuntimeError

    before = (run / "recipe.json").read_bytes()
    with pytest.raises(RuntimeError):
        fill(run, fail)
    assert (run / "recipe.json").read_bytes() == before
    assert [path.name for path in run.parent.iterdir()] == ["run"]


def test_only_a_run_and_nothing_else_is_replaced(run: Path) -> None:
    (run / "metrics.jsonl").touch()
    saved_flow.check_target(run, overwrite=True)
    (run / "thesis.txt").write_text("years")
    with pytest.raises(SavedFlowError, match=r"'thesis\.txt', which is no part of it; choose another --out"):
        saved_flow.check_target(run, overwrite=True)
    (run / "thesis.txt").unlink()
    (run / "samples.png").mkdir()
    with pytest.raises(SavedFlowError, match=r"'samples\.png', which is no part of it"):
        saved_flow.check_target(run, overwrite=True)
    (run / "samples.png").rmdir()
    (run / "recipe.json").write_text('{"flour": 500}')
    with pytest.raises(SavedFlowError, match="holds no fitted flow that can be read; choose another"):
        saved_flow.check_target(run, overwrite=True)
