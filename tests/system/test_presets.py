"""Every preset end to end: hub weights, training, bundle, server.

The weights are random, and reach the models folder through `flowgauge backbones pull` and the
real client of the hub, against a stand-in of it.
"""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from flows.fastflow.backbones.presets import PAPER, PRESETS
from flows.fastflow.bundle import bundle
from tests.support.random_weights import random_weights
from tests.support.stand_in_hub import Hub, serve
from tests.system.processes import COMMAND
from training.config.load_config import load_config
from training.run import train
from training.terminal.progress import Silent

pytestmark = pytest.mark.slow
# A step of one batch on four pictures, one more to calibrate with.
PICTURES = 5
ONE_STEP: dict[str, Any] = {
    "device": "cpu",
    "backbone": {"batch_size": 1},
    "fit": {"epochs": 1, "batch_size": 4},
    "calibration": {"target_fpr": 0.5},
}
BACKBONES = sorted({preset.backbone for preset in PRESETS.values()})


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A hub without weights, whose files go when the test ends: the largest take gigabytes."""
    (tmp_path / "hub").mkdir()
    with serve(tmp_path / "hub") as hub:
        yield hub
    for name in ("hub", "home", "models", "runs"):
        shutil.rmtree(tmp_path / name, ignore_errors=True)


@pytest.fixture
def few(tiny_data: Path, tmp_path: Path) -> Path:
    """The category "tiny" with a few images."""
    folder = tmp_path / "data/tiny/train/good"
    folder.mkdir(parents=True)
    for picture in sorted((tiny_data / "tiny/train/good").iterdir())[:PICTURES]:
        shutil.copy(picture, folder)
    return tmp_path / "data"


def pull(hub: Hub, tmp_path: Path, backbone: str) -> None:
    """Put random weights on the hub, and fetch them into the models folder with the command."""
    hub.put(backbone, random_weights(backbone))
    done = subprocess.run(
        [*COMMAND, "backbones", "pull", backbone, "--models", str(tmp_path / "models")],
        env=hub.environment(tmp_path / "home"),
        capture_output=True,
        text=True,
        timeout=540,
    )
    assert done.returncode == 0, done.stderr
    [file] = (tmp_path / "models/backbones").iterdir()
    assert done.stdout.splitlines() == [str(file)]
    assert f"weights of {backbone}: licence " in done.stderr


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_preset(backbone: str, hub: Hub, few: Path, tmp_path: Path, silent: Silent) -> None:
    """At its own size; CaiT-M48 needs 5 GB of memory and as much on disk while it runs."""
    pull(hub, tmp_path, backbone)
    models, runs, file = tmp_path / "models", tmp_path / "runs", tmp_path / "run.yaml"
    for name in sorted({backbone, PAPER + backbone} & set(PRESETS)):
        file.write_text(yaml.safe_dump({"preset": name, **ONE_STEP}))
        config = load_config(file)
        made = train(config, few, "tiny", models=models, runs=runs, resume=False, progress=silent).bundle
        manifest = bundle.verify(made)
        assert (manifest.input_size, manifest.flow) == (PRESETS[name].input_size, config.flow)
        assert tuple(manifest.backbone.out_indices) == PRESETS[name].out_indices
        # The largest need seconds a picture on idle cores, and these may be busy.
        settings = Settings(models=models, history=tmp_path / "history", device="cpu", deadline_ms=600_000)
        with TestClient(create_app(settings)) as client:
            for golden in manifest.golden:
                content = (made / golden.file).read_bytes()
                answer = client.post("/v1/models/tiny/predict", content=content)
                assert answer.status_code == 200, answer.text
                assert answer.json()["score"] == pytest.approx(golden.score, rel=1e-5)
                assert answer.json()["model"]["version"] == manifest.version
