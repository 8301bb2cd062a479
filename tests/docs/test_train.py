"""The YAML of docs/how-to/train.md against the run configuration."""

import re
from pathlib import Path

import pytest

from training.config.load_config import load_config

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "train.md").read_text()
LINES = re.findall(r"(?m)^ {4}((?:geometry|backbone): \{.*?\})", PAGE)
INLINE = re.findall(r"`(\w+: \{.+?\})`", PAGE)


def test_example_run_is_valid(tmp_path: Path) -> None:
    [text] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "run.yaml").write_text(text)
    assert load_config(tmp_path / "run.yaml", "bottle").augment.right_angles
    assert load_config(tmp_path / "run.yaml", "grid").fit.epochs == 40


@pytest.mark.parametrize("text", [*LINES, *INLINE])
def test_single_settings_are_valid(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.yaml").write_text(text)
    load_config(tmp_path / "run.yaml")
    assert len(LINES) == 7
