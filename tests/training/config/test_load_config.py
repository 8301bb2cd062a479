"""Loading a run's YAML: every setting, named errors, and overrides of the command line."""

import locale
from collections.abc import Iterator
from functools import reduce
from operator import getitem
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from tests.training.run_yaml import write
from training.config.load_config import categories_with_settings, dump_config, load_config
from training.config.run_config import ConfigError, RunConfig

# Another value than the default for every field there is.
OTHER = """
seed: 7
sample_bits: 12
device: cpu
input_size: [128, 192]
geometry: {fit: tile, shrink: area, margin: 8, overlap: 0.5, scale: 0.5, max_pixels: 65536, max_tiles: 9}
backbone: {name: resnet18, out_indices: [1, 2, 3], weights: w/r18.pth, batch_size: 3}
normalisation: {mode: layer, pooling: 5, pooled: all}
gaussian: {means: channel}
flow:
  {steps: 20, kernels: '3', hidden_ratio: 0.16, hidden_limit: 100, clamp: 1.5, clamp_formula: c*tanh(a/c),
  permutation: index}
score:
  {top_fraction: 0.05, energy_floor: 0.1, gaussian: 0.5, enlarging: linear, sharpness: 2.0, picture: 0.2}
fit:
  {steps: 90, epochs: 3, batch_size: 16, tiles: 4, schedule: constant, learning_rate: 0.0001,
  weight_decay: 0.0, gradient_clip: 0.5, noise: 0.1, precision: bfloat16, threads: 1,
  stopping: {patience: 2, fraction: 0.3}}
calibration: {fraction: 0.3, target_fpr: 0.05, review_fpr: 0.25, engines: [float32, bfloat16]}
augment:
  {hflip: true, vflip: true, right_angles: true, degrees: 5.0, brightness: 0.1, contrast: 0.2, copies: 2}
feature_cache: {max_gib: 1.5}
tensorboard: logs
"""


def leaves(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Names of all fields of a model and of the models within it."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from leaves(inner, (*prefix, name))
        else:
            yield (*prefix, name)


def test_every_field_is_reachable_by_yaml(tmp_path: Path) -> None:
    found = load_config(write(tmp_path, OTHER)).model_dump(mode="json")
    wanted, default = yaml.safe_load(OTHER), RunConfig().model_dump(mode="json")
    for path in leaves(RunConfig):
        if path == ("geometry", "working_size"):  # or a scale, not both
            continue
        value, asked, usual = (reduce(getitem, path, of) for of in (found, wanted, default))
        assert value == asked, path
        assert value != usual or path == ("flow", "clamp_formula"), path  # there is one only


@pytest.fixture
def _ascii_locale() -> Iterator[None]:
    before = locale.setlocale(locale.LC_CTYPE)
    locale.setlocale(locale.LC_CTYPE, "C")
    yield
    locale.setlocale(locale.LC_CTYPE, before)


@pytest.mark.usefixtures("_ascii_locale")
def test_file_is_read_as_utf8_whatever_the_locale_is(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes("# für die Linie\nbackbone: {weights: prüfung}\n".encode())
    assert load_config(path).backbone.weights == Path("prüfung")


@pytest.mark.parametrize(
    ("settings", "images", "epochs"),
    [
        ({"steps": 400, "batch_size": 8}, 209, 15),  # 27 batches: 14 epochs are 378 updates
        ({"steps": 400, "batch_size": 8}, 8, 400),
        ({"steps": 400, "batch_size": 8}, 9, 200),
        ({"steps": 400, "batch_size": 8}, 10_000, 1),
        ({"steps": 27, "batch_size": 8}, 209, 1),
        ({"steps": 28, "batch_size": 8}, 209, 2),
        ({"steps": 5, "epochs": 3, "batch_size": 8}, 209, 3),
    ],
)
def test_epochs_are_the_fewest_that_give_the_updates(
    settings: dict[str, int], images: int, epochs: int
) -> None:
    fit = RunConfig.model_validate({"fit": settings}).fit
    assert fit.epochs_for(images) == epochs
    assert fit.batches_of(images) == -(-images // 8)


@pytest.mark.parametrize("config", [RunConfig(), RunConfig.model_validate(yaml.safe_load(OTHER))])
def test_dumped_config_loads_to_the_same_run(tmp_path: Path, config: RunConfig) -> None:
    text = dump_config(config)
    assert load_config(write(tmp_path, text)) == config
    assert text.startswith("seed: ")  # in the order of the fields, to be read from the top


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epoch: 3", "epoch: there is no such setting"),
        ("fit: {epoch: 3}", "fit.epoch: there is no such setting"),
        ("fit: {epochs: 0}", "fit.epochs: Input should be greater than or equal to 1"),
        ("geometry: {fit: tile, scale: 1, working_size: 900}", "contradict each other; set one of them"),
        ("geometry: {margin: 65}", "a geometry.margin of 65 on each side leaves less than half of the input"),
        ("fit: {learning_rate: .nan}", "fit.learning_rate: Input should be a finite number"),
        ("fit: 12", "fit: Input should be a valid dictionary"),
        ("calibration: {target_fpr: 0.51}", "target_fpr: Input should be less than or equal to 0.5"),
        ("input_size: [16, 256]", "input_size must lie between 32 and 4096; got (16, 256)"),
        ("input_size: [3000, 2000]", "input_size may have at most 4,194,304 pixels; got (3000, 2000)"),
        ("normalisation: {mood: layer}", "normalisation.mood: there is no such setting"),
        ("1: 2", "1: "),
    ],
)
def test_wrong_setting_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    first, second, *_ = str(caught.value).splitlines()
    assert first == f"{path} cannot be used:"
    assert said in second


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"fit: {epochs: 3", "is not YAML"),
        (b"seed: !!python/object/apply:os.getcwd []", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
        (b"- 1\n- 2\n", "must hold a mapping of settings; got list"),
    ],
)
def test_file_without_a_yaml_mapping_is_refused(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*nothing\.yaml: No such file"):
        load_config(tmp_path / "nothing.yaml")
    with pytest.raises(ConfigError, match="Is a directory"):
        load_config(tmp_path)


def test_overrides_win_over_the_file_and_leave_the_rest(tmp_path: Path) -> None:
    found = load_config(write(tmp_path, OTHER), seed=1, device="auto", epochs=9, threads=4, target_fpr=0.2)
    wanted = yaml.safe_load(OTHER) | {"seed": 1, "device": "auto"}
    wanted["fit"] |= {"epochs": 9, "threads": 4}
    wanted["calibration"]["target_fpr"] = 0.2
    assert found == RunConfig.model_validate(wanted)


def test_wrong_override_is_named_by_its_option(tmp_path: Path) -> None:
    path = write(tmp_path, "fit: {epochs: 4, noise: 2}\ncalibration: {review_fpr: 0.1}")
    with pytest.raises(ConfigError) as caught:
        load_config(path, seed=-1, epochs=0, threads=0, target_fpr=0.2)
    first, *lines = str(caught.value).splitlines()
    assert first == f"{path} with --seed, --epochs, --threads, --target-fpr cannot be used:"
    named = [line.split(":")[0].strip() for line in lines]
    assert named == ["--seed", "--epochs", "fit.noise", "--threads", "calibration"]


CATEGORIES = """
fit: {epochs: 5, batch_size: 4}
categories:
  bottle: {augment: {hflip: true}, fit: {epochs: 9}}
  grid:
"""


def test_settings_of_a_category_win_field_by_field(tmp_path: Path) -> None:
    path = write(tmp_path, CATEGORIES)
    bottle, grid, all_others = (load_config(path, name) for name in ("bottle", "grid", None))
    assert (bottle.fit.epochs, bottle.fit.batch_size, bottle.augment.hflip) == (9, 4, True)
    assert grid == all_others == load_config(path, "tile")
    assert (grid.fit.epochs, grid.augment.active) == (5, False)


def test_updates_of_a_category_win_over_epochs_of_all(tmp_path: Path) -> None:
    own = "{bottle: {fit: {steps: 30}}, grid: {fit: {steps: 30, epochs: 2}}, tile: {fit: {noise: 0}}}"
    path = write(tmp_path, f"fit: {{epochs: 3}}\ncategories: {own}")
    bottle, grid, tile = (load_config(path, name).fit for name in ("bottle", "grid", "tile"))
    assert (bottle.epochs, bottle.steps) == (None, 30)
    assert (grid.epochs, tile.epochs) == (2, 3)
    assert load_config(path, "bottle", epochs=4).fit.epochs == 4


def test_the_categories_with_settings_of_their_own_are_known(tmp_path: Path) -> None:
    assert categories_with_settings(write(tmp_path, CATEGORIES)) == ["bottle", "grid"]
    assert categories_with_settings(write(tmp_path, "seed: 1")) == categories_with_settings(None) == []


def test_wrong_category_setting_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "categories: {bottle: {fit: {epoch: 9}}}")
    assert load_config(path, "grid") == RunConfig()
    with pytest.raises(ConfigError, match=r"fit\.epoch: there is no such setting"):
        load_config(path, "bottle")


@pytest.mark.parametrize("text", ["categories: 3", "categories: [bottle]", "categories: {bottle: 3}"])
def test_categories_that_map_to_no_settings_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="categories must map each name to a mapping"):
        load_config(write(tmp_path, text), "bottle")


@pytest.mark.parametrize("name", ["10", "1.5", "2026-11-27", "null"])
def test_category_name_that_is_no_yaml_text_is_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, f"categories: {{{name}: {{seed: 3}}, bottle: {{seed: 4}}}}")
    with pytest.raises(ConfigError, match="is no text; write it in quotes"):
        load_config(path, name)
    assert load_config(write(tmp_path, f"categories: {{'{name}': {{seed: 3}}}}"), name).seed == 3
