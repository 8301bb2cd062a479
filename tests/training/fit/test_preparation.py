"""The inputs of a run that follow from its images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flows.fastflow.config import Geometry
from tests.conftest import png
from training.config.run_config import RunConfig
from training.fit.preparation import Run, prepare_run
from training.terminal.progress import Silent


@pytest.fixture
def prepare(tmp_path: Path, silent: Silent) -> Callable[..., Run]:
    """A function that prepares a run on long images with some settings."""
    folder = tmp_path / "data/long/train/good"
    folder.mkdir(parents=True)
    for i in range(10):
        (folder / f"{i}.png").write_bytes(png(np.full((40, 640, 3), 20 * i, np.uint8)))

    def prepared(**settings: object) -> Run:
        config = RunConfig.model_validate({"device": "cpu", **settings})
        return prepare_run(
            config, tmp_path / "data", "long", tmp_path / "models", tmp_path / "runs",
            resume=False, progress=silent, backbones=None,
        )  # fmt: skip

    return prepared


def test_auto_geometry_equals_the_same_input_given(prepare: Callable[..., Run]) -> None:
    chosen, given = (prepare(), prepare(geometry={"fit": "stretch"}, input_size=[256, 320]))
    assert (chosen.input_size, chosen.geometry) == ((256, 320), Geometry(fit="stretch"))
    assert chosen.config == given.config
    assert chosen.identity == given.identity
    assert chosen.geometry_reason is not None
    assert given.geometry_reason is None


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({"input_size": [128, 128]}, (128, 128)),
        ({"geometry": {"fit": "stretch"}}, (256, 256)),
        ({"geometry": {"fit": "pad"}}, (256, 256)),
    ],
)
def test_given_geometry_is_kept(
    prepare: Callable[..., Run], settings: dict[str, object], size: tuple[int, int]
) -> None:
    run = prepare(**settings)
    assert (run.input_size, run.geometry_reason) == (size, None)


def test_batch_size_follows_the_input_unless_given(prepare: Callable[..., Run]) -> None:
    assert prepare(input_size=[512, 512]).config.fit.batch_size == 2
    assert prepare(input_size=[512, 512], fit={"batch_size": 8}).config.fit.batch_size == 8
