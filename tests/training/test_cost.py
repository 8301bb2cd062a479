"""The forecast: it leaves no trace, and a disk that is too small is told before anything is done."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from flows.fastflow.models_folder import BACKBONES
from tests.flows.fastflow import untrained
from training.backbone import BackboneLoader
from training.cache_folder import GIB, CacheFolder, DiskSpaceError
from training.config import RunConfig
from training.cost import Cost, ForecastError, _Flow, disk_used, duration, forecast, peak_memory, size
from training.datasets.sample import DatasetError
from training.feature_cache import FeatureCache
from training.loop import CHECKPOINT, FitError
from training.pictures import Pictures, gather
from training.progress import Progress, Silent
from training.run import train
from training.tiles import Tile

# As the run has: what it keeps of features is named by it.
pytestmark = pytest.mark.threads(2)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    weights = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_file(untrained.state(), weights)
    return RunConfig.model_validate(
        {
            "device": "cpu",
            "input_size": [64, 64],
            "backbone": {"name": untrained.NAME, "out_indices": [1, 2], "weights": weights},
            "flow": {"steps": 2},
            "fit": {"epochs": 2, "batch_size": 4},
            "calibration": {"fraction": 0.3},
        }
    )


@pytest.fixture
def pictures(config: RunConfig, tiny_data: Path) -> Pictures:
    return gather(config, tiny_data, "tiny")


@pytest.fixture
def cache(config: RunConfig, pictures: Pictures, tmp_path: Path) -> FeatureCache:
    return cache_of(config, pictures, tmp_path)


def cache_of(config: RunConfig, pictures: Pictures, folder: Path) -> FeatureCache:
    tiles = [Tile(picture, 0) for picture in range(len(pictures.paths))]
    return FeatureCache(
        CacheFolder(folder / "features", GIB),
        BackboneLoader(folder / BACKBONES).extractor(config.backbone, config.input_size, CPU),
        pictures.views(config.augment, 0, tiles),
        input_size=config.input_size,
        batch_size=config.backbone.batch_size,
        geometry=config.geometry,
        sample_bits=16,
    )


class Said(Silent):
    """Keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        """Keep a line."""
        self.lines.append(line)


def changed(config: RunConfig, **sections: dict[str, object]) -> RunConfig:
    data = config.model_dump()
    for name, values in sections.items():
        data[name] = {**data[name], **values}
    return RunConfig.model_validate(data)


def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every step, checkpoint and score take a second, so that forecasts can be compared."""
    monkeypatch.setattr("training.cost._time_flow", lambda *_: _Flow(1, 1, 1, 1))


def test_it_says_what_there_is_to_do(
    config: RunConfig, pictures: Pictures, cache: FeatureCache, tmp_path: Path
) -> None:
    cost, first = forecast(config, pictures, cache, folder=tmp_path, models=tmp_path, epochs_done=0)
    assert min(cost.features, cost.fit, cost.calibration) > 0
    assert cost.seconds == cost.features + cost.fit + cost.calibration
    assert cost.disk > cache.nbytes(first)
    assert cost.memory > peak_memory() / 2
    assert [array.shape[0] for array in first] == [8, 8]


def test_what_is_done_costs_nothing(
    config: RunConfig, pictures: Pictures, cache: FeatureCache, tmp_path: Path
) -> None:
    with cache.features(lambda _: None):
        pass
    cost, _ = forecast(config, pictures, cache, folder=tmp_path, models=tmp_path, epochs_done=2)
    assert (cost.features, cost.fit) == (0, 0)
    assert cost.calibration > 0


def test_it_leaves_no_trace(
    config: RunConfig, pictures: Pictures, cache: FeatureCache, tmp_path: Path
) -> None:
    left = tmp_path / "run" / "forecast"  # of a killed run
    left.mkdir(parents=True)
    (left / "checkpoint.part").write_bytes(b"half")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    forecast(config, pictures, cache, folder=tmp_path / "run", models=tmp_path, epochs_done=0)
    assert torch.equal(torch.rand(3), expected)
    assert list((tmp_path / "run").iterdir()) == []
    assert not (tmp_path / "features").exists()


def test_features_that_are_of_no_use_are_told_and_leave_no_trace(
    config: RunConfig, pictures: Pictures, cache: FeatureCache, tmp_path: Path
) -> None:
    cache.extractor.gain.fill_(float("nan"))
    (tmp_path / "run").mkdir()
    with pytest.raises(FitError, match="are its weights sound"):
        forecast(config, pictures, cache, folder=tmp_path / "run", models=tmp_path, epochs_done=0)
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize(
    ("count", "sections"),
    [
        (3, {"fit": {"batch_size": 8}}),
        (10, {"fit": {"batch_size": 32}}),
    ],
    ids=["3 pictures", "10 pictures in batches of 32"],
)
def test_few_pictures_can_be_trained_with(
    config: RunConfig, tmp_path: Path, tiny_data: Path, count: int, sections: dict[str, dict[str, object]]
) -> None:
    """They fill no batch, but the forecast needs several steps to time one."""
    good = tmp_path / "data" / "tiny" / "train" / "good"
    good.mkdir(parents=True)
    for path in sorted((tiny_data / "tiny/train/good").iterdir())[:count]:
        shutil.copy(path, good)
    said = Said()
    _, bundle = trained(changed(config, **sections), tmp_path / "data", tmp_path / "runs", said)
    assert bundle.is_dir()
    [line] = [line for line in said.lines if line.startswith("forecast: ")]
    assert "features" in line


def test_a_forecast_that_fails_ends_no_run(
    config: RunConfig, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.cost.Scorer", out_of_memory)
    said = Said()
    _, bundle = trained(config, tiny_data, tmp_path, said)
    assert bundle.is_dir()
    assert "forecast: none, for the cost could not be measured: OutOfMemoryError: too large" in said.lines


def test_a_held_out_picture_that_was_changed_since_ends_the_run_before_it_takes_hours(
    config: RunConfig, tiny_data: Path, tmp_path: Path
) -> None:
    config = changed(config, backbone={"batch_size": 1})
    pictures = gather(config, shutil.copytree(tiny_data, tmp_path / "data"), "tiny")
    cache = cache_of(config, pictures, tmp_path)
    assert pictures.held_out[0] != pictures.paths[0]  # of which the first batch is
    shutil.copy(pictures.paths[0], pictures.held_out[0])
    with pytest.raises(DatasetError, match=f"{pictures.held_out[0].name} was changed since the run began"):
        forecast(config, pictures, cache, folder=tmp_path, models=tmp_path, epochs_done=0)


def test_pictures_that_are_gone_are_all_named_before_anything_is_measured(
    config: RunConfig, tiny_data: Path, tmp_path: Path
) -> None:
    pictures = gather(config, shutil.copytree(tiny_data, tmp_path / "data"), "tiny")
    cache = cache_of(config, pictures, tmp_path)
    for i in (3, 30):
        pictures.paths[i].unlink()
    with pytest.raises(DatasetError, match=r"(?s)pictures that were there .*003\.png: .*030\.png: "):
        forecast(config, pictures, cache, folder=tmp_path, models=tmp_path, epochs_done=0)


def test_a_forecast_that_fails_leaves_no_trace(
    config: RunConfig,
    pictures: Pictures,
    cache: FeatureCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("training.cost.Scorer", out_of_memory)
    (tmp_path / "run").mkdir()
    with pytest.raises(ForecastError, match="too large"):
        forecast(config, pictures, cache, folder=tmp_path / "run", models=tmp_path, epochs_done=0)
    assert list((tmp_path / "run").iterdir()) == []


def out_of_memory(*_: object) -> None:
    raise torch.OutOfMemoryError("too large")


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(
    config: RunConfig,
    pictures: Pictures,
    cache: FeatureCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full = shutil.disk_usage(tmp_path)._replace(free=2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(DiskSpaceError, match=r"the run needs \d+ MiB of disk .* has 1 MiB left: free some"):
        forecast(config, pictures, cache, folder=tmp_path, models=tmp_path, epochs_done=0)
    assert [path for path in tmp_path.iterdir() if path.name != BACKBONES] == []


def test_a_full_disk_of_models_is_told_before_hours_are_spent(
    config: RunConfig,
    pictures: Pictures,
    cache: FeatureCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "other").mkdir()
    real = shutil.disk_usage

    def usage(path: Path) -> object:
        return real(path)._replace(free=2**10) if path == tmp_path / "other" else real(path)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    models = tmp_path / "other/not/there/yet"
    with pytest.raises(
        DiskSpaceError, match=r"the model needs \d+ MiB of disk, and .*yet has 0 MiB left: .*--models"
    ):
        forecast(config, pictures, cache, folder=tmp_path, models=models, epochs_done=0)
    assert not models.exists()


def test_caches_that_nobody_uses_count_as_room(
    config: RunConfig,
    pictures: Pictures,
    cache: FeatureCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def make(folder: Path) -> None:
        (folder / "x").write_bytes(bytes(32 * 2**20))

    with cache.folder.use("old", 0, make):
        pass
    full = shutil.disk_usage(tmp_path)._replace(free=2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    forecast(config, pictures, cache, folder=tmp_path, models=tmp_path, epochs_done=0)


def trained(config: RunConfig, data: Path, root: Path, progress: Progress | None = None) -> tuple[Path, Path]:
    """The folder of a whole run, and its bundle."""
    progress = progress or Silent()
    outcome = train(config, data, "tiny", models=root / "models", runs=root, resume=False, progress=progress)
    [folder] = (root / "tiny").iterdir()
    return folder, outcome.bundle


def test_the_disk_that_a_run_takes_is_the_forecast(
    config: RunConfig, pictures: Pictures, cache: FeatureCache, tmp_path: Path, tiny_data: Path
) -> None:
    cost, _ = forecast(config, pictures, cache, folder=tmp_path, models=tmp_path, epochs_done=0)
    folder, bundle = trained(config, tiny_data, tmp_path)
    assert disk_used(cache, folder, bundle) == pytest.approx(cost.disk, rel=0.15)


def test_a_run_that_is_resumed_needs_no_room_for_the_checkpoint_that_it_replaces(
    config: RunConfig,
    pictures: Pictures,
    cache: FeatureCache,
    tmp_path: Path,
    tiny_data: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, bundle = trained(config, tiny_data, tmp_path)
    assert cache.there
    checkpoint = (folder / CHECKPOINT).stat().st_size
    published = sum(file.stat().st_size for file in bundle.iterdir())
    usage = shutil.disk_usage(tmp_path)

    def forecast_with(free: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))
        forecast(config, pictures, cache, folder=folder, models=tmp_path, epochs_done=1)

    forecast_with(checkpoint + published)
    with pytest.raises(DiskSpaceError, match="of disk for features"):
        forecast_with(checkpoint // 2 + published)
    (folder / CHECKPOINT).unlink()
    with pytest.raises(DiskSpaceError, match="of disk for features"):
        forecast_with(checkpoint + published)


@pytest.mark.parametrize(
    "sections",
    [
        {"fit": {"stopping": {"patience": 1}}},
        {"calibration": {"engines": ("float32", "bfloat16")}},
    ],
    ids=["stopping", "two engines"],
)
def test_the_disk_of_the_best_weights_is_in_the_forecast(
    config: RunConfig, tmp_path: Path, tiny_data: Path, sections: dict[str, dict[str, object]]
) -> None:
    config = changed(config, **sections)
    pictures = gather(config, tiny_data, "tiny")
    cache = cache_of(config, pictures, tmp_path)
    cost, _ = forecast(config, pictures, cache, folder=tmp_path, models=tmp_path, epochs_done=0)
    folder, bundle = trained(config, tiny_data, tmp_path)
    features = sum(path.stat().st_size for path in (cache.folder.folder / cache.name).iterdir())
    taken = disk_used(cache, folder, bundle)
    assert taken == pytest.approx(cost.disk, rel=0.15)
    # Features, the same in all runs, must not hide a checkpoint that was forgotten.
    assert taken - features == pytest.approx(cost.disk - features, rel=0.25)


@pytest.mark.parametrize("looks", [0, 1])
def test_what_another_run_takes_away_meanwhile_is_no_failure(
    cache: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: int
) -> None:
    """Features, say, gone after so many looks at them: the run is published by then."""
    folder, bundle, gone = tmp_path / "run", tmp_path / "bundle", tmp_path / "run/b/gone"
    for path, count in ((folder / "a", 3), (gone, 5), (bundle / "c", 7)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(count))
    assert disk_used(cache, folder, bundle) == 15
    stat = os.stat
    looked: list[Any] = []

    def late(path: Any, **options: Any) -> os.stat_result:
        if str(path) == str(gone):
            if len(looked) == looks:
                gone.unlink()
            looked.append(path)
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", late)
    assert disk_used(cache, folder, bundle) == 10 + 5 * looks


def test_pictures_that_judge_when_to_stop_cost_time_in_every_epoch(
    config: RunConfig, tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steady(monkeypatch)
    config = changed(config, fit={"stopping": {"fraction": 0.25}})
    pictures = gather(config, tiny_data, "tiny")
    cost, _ = forecast(
        config,
        pictures,
        cache_of(config, pictures, tmp_path),
        folder=tmp_path,
        models=tmp_path,
        epochs_done=0,
    )
    # 22 to fit, of which 6 judge and 16 are 4 batches; 10 to calibrate; a checkpoint.
    assert cost.fit == 2 * (4 + 6 + 10 + 1)


def test_it_is_said_in_a_line() -> None:
    cost = Cost(features=7.7, fit=223.4, calibration=6.21, disk=126 * 2**20, memory=1_500_000_000)
    assert str(cost) == (
        "3 min 57 s (features 7.7 s, fit 3 min 43 s, calibration 6.2 s), disk 126 MiB, memory 1.4 GiB"
    )
    assert "memory" not in str(Cost(features=1, fit=1, calibration=1, disk=1, memory=0))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (60, "1 min 0 s"), (7499, "2 h 4 min")],
)
def test_durations_are_said_as_a_person_does(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(("nbytes", "said"), [(0, "0 MiB"), (3 * 2**20, "3 MiB"), (1.5 * 2**30, "1.5 GiB")])
def test_sizes_are_said_as_a_person_does(nbytes: float, said: str) -> None:
    assert size(nbytes) == said
